// Truth tables of a phase: vantage points down, targets with transports and families across.

const compare = new Intl.Collator("en", { numeric: true }).compare;

/** The tables of a phase; `matches` says which cells the filters select, null: all. */
function phaseHtml(phase, matches) {
  const cells = phaseCells[phase].filter((cell) => !matches || matches[cell]);
  const html = KINDS.map((title, kind) => {
    const of = cells.filter((cell) => rows[cell][AT.kind] === kind);
    if (of.length === 0) return "";
    return kind === OBJECTS ? objectsHtml(title, of) : matrixHtml(title, of);
  });
  return html.join("") + legendHtml(cells);
}

function matrixHtml(title, cells) {
  const columns = new Map(); // target → way → families
  const lines = new Map(); // vantage point → "target\0way\0family" → cells
  for (const cell of cells) {
    const [line, target, way, family] = [cellText(cell, AT.row), cellText(cell, AT.column), cellText(cell, AT.way), cellFamily(cell)];
    if (!columns.has(target)) columns.set(target, new Map());
    const ways = columns.get(target);
    if (!ways.has(way)) ways.set(way, new Set());
    ways.get(way).add(family);
    if (!lines.has(line)) lines.set(line, new Map());
    const entries = lines.get(line);
    const key = `${target}\0${way}\0${family}`;
    entries.has(key) ? entries.get(key).push(cell) : entries.set(key, [cell]);
  }
  const sorted = (names) => [...names].sort(compare);
  const targets = sorted(columns.keys());
  const keys = [];
  let [first, second, third] = ["", "", ""];
  for (const target of targets) {
    const ways = columns.get(target);
    let width = 0;
    for (const way of sorted(ways.keys())) {
      const families = sorted(ways.get(way));
      second += `<th scope="colgroup" colspan="${families.length}" class="way"><span>${esc(way)}</span></th>`;
      families.forEach((family, at) => {
        third += `<th scope="col" class="family${width === 0 && at === 0 ? " edge" : ""}">${family.slice(1) || "·"}</th>`;
        keys.push({ key: `${target}\0${way}\0${family}`, edge: width === 0 && at === 0 });
      });
      width += families.length;
    }
    first += `<th scope="colgroup" colspan="${width}" class="target edge" title="${esc(target)}"><span>${esc(target)}</span></th>`;
  }
  const withWays = cells.some((cell) => rows[cell][AT.way]);
  const head = `<tr><th class="corner" rowspan="${withWays ? 3 : 2}" scope="col">from \\ to</th>${first}</tr>` +
    (withWays ? `<tr>${second}</tr>` : "") + `<tr>${third}</tr>`;
  let stop = ' tabindex="0"'; // one stop for the Tab key; arrows move from there
  const body = sorted(lines.keys()).map((line) => {
    const entries = lines.get(line);
    const data = keys.map(({ key, edge }) => {
      const buttons = (entries.get(key) || []).map((cell) => {
        const html = `<button type="button" class="c ${cellClass(cell)}" data-cell="${cell}"${stop || ' tabindex="-1"'} aria-label="${esc(cellSentence(cell))}">${cellSign(cell)}</button>`;
        stop = "";
        return html;
      });
      return `<td${edge ? ' class="edge"' : ""}>${buttons.join("")}</td>`;
    });
    return `<tr><th scope="row" title="${esc(line)}">${esc(line)}</th>${data.join("")}</tr>`;
  });
  const label = `${title}: ${grouped(cells.length)} ${cells.length === 1 ? "cell" : "cells"}`;
  return `<h4>${label}</h4><div class="scroll"><table class="matrix" aria-label="${label}">
    <thead>${head}</thead><tbody>${body.join("")}</tbody></table></div>`;
}

function objectsHtml(title, cells) {
  const line = (cell) => `<tr><td><button type="button" class="c ${cellClass(cell)}" data-cell="${cell}" aria-label="${esc(cellSentence(cell))}">${cellSign(cell)}</button></td>
    <th scope="row">${esc(cellText(cell, AT.row))}</th><td>${esc(cellText(cell, AT.column))}</td></tr>`;
  return `<h4>${title}: ${grouped(cells.length)}</h4><div class="scroll"><table class="plain objects">
    <thead><tr><th scope="col"><span class="heard">verdict</span></th><th scope="col">object</th><th scope="col">what must be said of it</th></tr></thead>
    <tbody>${cells.map(line).join("")}</tbody></table></div>`;
}

const LEGEND = [
  ["!", "v-fail", "expected closed, got through"], ["X", "v-fail", "expected open or true, is not"],
  ["?", "v-error", "could not be judged"], ["~", "v-unstable", "settled, but not without a violation"],
  ["f", "v-fixed", "known to fail, holds"], ["k", "v-known", "known to fail, fails"],
  ["o", "is-open", "open or true, as expected"], ["·", "is-closed", "closed, as expected"], ["–", "v-skip", "skipped"],
];

function legendHtml(cells) {
  const used = new Set(cells.map(cellSign));
  const items = LEGEND.filter(([sign]) => used.has(sign));
  return `<ul class="legend" aria-label="Signs">${items.map(([sign, name, meaning]) =>
    `<li><span class="c ${name}" aria-hidden="true">${sign}</span><span class="heard">${sign}: </span>${meaning}</li>`).join("")}</ul>`;
}

/** Arrow keys, Home and End move in a matrix. */
function moveInMatrix(event) {
  const button = event.target.closest?.("table.matrix button.c");
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -Infinity], End: [0, Infinity] }[event.key];
  if (!button || !step || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const body = button.closest("tbody");
  const buttons = (line) => [...body.rows[line].querySelectorAll("button.c")];
  let next = null;
  if (step[0] === 0) {
    const line = buttons(button.closest("tr").sectionRowIndex);
    next = line[Math.min(line.length - 1, Math.max(0, line.indexOf(button) + step[1]))];
  } else {
    const column = button.closest("td").cellIndex;
    for (let line = button.closest("tr").sectionRowIndex + step[0]; body.rows[line] && !next; line += step[0]) {
      next = body.rows[line].cells[column].querySelector("button.c");
    }
  }
  if (!next) return;
  button.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
