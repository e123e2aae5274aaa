// The run's cells: a row of numbers each, as `cells.rs` wrote them; texts by their number in the book.

const book = JSON.parse(document.getElementById("book").textContent);
const rows = JSON.parse(document.getElementById("cells").textContent);

const AT = {
  phase: 0, verdict: 1, id: 2, rule: 3, kind: 4, row: 5, column: 6, way: 7, family: 8, transport: 9, networks: 10,
  expectation: 11, observed: 12, expected: 13, reason: 14, settled: 15, attempts: 16, probe: 17, witness: 18,
  vantage: 19, listener: 20, repeat: 21, topology: 22, placement: 23, requires: 24, flow: 25, notes: 26,
};

const KINDS = ["Connections", "Series of connections", "Names", "Inside pods", "Objects", "Figures of flows"];
const OBJECTS = 4;
const BAD = ["fail", "error", "unstable", "fixed", "known"]; // worst first
const NEGATIVE = new Set(["closed", "dropped", "rejected", "no such name"]);

const cellText = (cell, at) => book.strings[rows[cell][at] || 0];
const cellId = (cell) => rows[cell][AT.id].map((part) => book.strings[part]).join("::");
const cellVerdict = (cell) => book.verdicts[rows[cell][AT.verdict]];
const cellFamily = (cell) => (rows[cell][AT.family] ? `v${rows[cell][AT.family]}` : "");
const isNegative = (cell) => NEGATIVE.has(cellText(cell, AT.expectation));

/** Cells by the number of their phase. */
const phaseCells = book.phases.map(() => []);
rows.forEach((row, cell) => phaseCells[row[AT.phase]].push(cell));

let numbers = null;
/** The cell of an id; undefined where there is none. */
function cellOf(id) {
  numbers ??= new Map(rows.map((_, cell) => [cellId(cell), cell]));
  return numbers.get(id);
}

/** Who to whom over what, in words. */
function cellAbout(cell) {
  const over = [cellText(cell, AT.way), cellFamily(cell)].filter(Boolean).join(", ");
  const between = ![3, OBJECTS].includes(rows[cell][AT.kind]) ? " → " : ": ";
  return cellText(cell, AT.row) + between + cellText(cell, AT.column) + (over ? `, ${over}` : "");
}

/** The command that repeats a cell's probe. */
function cellCommand(cell) {
  const repeat = rows[cell][AT.repeat] || 0;
  if (!Array.isArray(repeat)) return book.strings[repeat];
  return book.strings[repeat[0]] + book.strings[rows[cell][AT.probe][1]] + book.strings[repeat[1]];
}

/** A cell's attempts. */
function cellAttempts(cell) {
  const flat = rows[cell][AT.attempts] || [];
  const attempts = [];
  for (let at = 0; at < flat.length; at += 6) {
    const [first, span, count, outcome, took, arrived] = flat.slice(at, at + 6);
    attempts.push({ first, last: first + span, count, outcome: book.strings[outcome], took: took ? took - 1 : null, arrived });
  }
  return attempts;
}

/** The character that stands for a cell in a table. */
function cellSign(cell) {
  switch (cellVerdict(cell)) {
    case "pass": return isNegative(cell) ? "·" : "o";
    case "fail": return isNegative(cell) ? "!" : "X";
    case "unstable": return "~";
    case "error": return "?";
    case "known": return "k";
    case "fixed": return "f";
    default: return "–";
  }
}

/** Its colour: that of its verdict, and what was expected where that came true. */
const cellClass = (cell) => {
  const verdict = cellVerdict(cell);
  return verdict === "pass" ? (isNegative(cell) ? "is-closed" : "is-open") : `v-${verdict}`;
};

/** A cell in one sentence. */
const cellSentence = (cell) =>
  `${cellAbout(cell)}: expected ${cellText(cell, AT.expectation)}, observed ${cellText(cell, AT.observed)}: ${cellVerdict(cell)}`;
