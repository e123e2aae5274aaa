// Filters: which cells are shown. They live in the address, so that a view can be sent to somebody.

const chosen = { text: "", verdict: new Set(), rule: "", network: "", family: "", transport: "" };
let haystacks = null;

const unique = (texts) => [...new Set(texts)].filter(Boolean).sort(compare);

/** Offers what the run has. */
function offerFilters() {
  const column = (at) => rows.map((_, cell) => cellText(cell, at));
  const offer = (id, all, texts) => {
    const options = [`<option value="">${all}</option>`, ...unique(texts).map((text) => `<option>${esc(text)}</option>`)];
    byId(id).innerHTML = options.join("");
  };
  offer("f-rule", "every rule", column(AT.rule));
  offer("f-network", "every network", unique(column(AT.networks)).flatMap((names) => names.split(" ")));
  offer("f-family", "both families", rows.map((_, cell) => cellFamily(cell)));
  offer("f-transport", "every transport", column(AT.transport));
  const there = new Set(rows.map((row) => row[AT.verdict]));
  byId("f-verdicts").innerHTML = book.verdicts.filter((_, number) => there.has(number)).map((verdict) =>
    `<button type="button" class="chip v-${verdict}" data-verdict="${verdict}" aria-pressed="false"><span aria-hidden="true">${SIGNS[verdict]}</span> ${verdict}</button>`).join("");
  byId("filters").hidden = false;
}

/** Which cells the filters select, and null where there is no filter. */
function selected() {
  const active = chosen.text || chosen.verdict.size || chosen.rule || chosen.network || chosen.family || chosen.transport;
  if (!active) return null;
  const words = chosen.text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length) {
    haystacks ??= rows.map((_, cell) => `${cellId(cell)} ${cellText(cell, AT.reason)} ${cellCommand(cell)}`.toLowerCase());
  }
  const matches = new Uint8Array(rows.length);
  rows.forEach((_, cell) => {
    matches[cell] =
      (!chosen.verdict.size || chosen.verdict.has(cellVerdict(cell))) &&
      (!chosen.rule || cellText(cell, AT.rule) === chosen.rule) &&
      (!chosen.network || cellText(cell, AT.networks).split(" ").includes(chosen.network)) &&
      (!chosen.family || cellFamily(cell) === chosen.family) &&
      (!chosen.transport || cellText(cell, AT.transport) === chosen.transport) &&
      words.every((word) => haystacks[cell].includes(word));
  });
  return matches;
}

let matches = null;

/** Shows what the filters select: phases without it vanish, tables have nothing else. */
function applyFilters() {
  matches = selected();
  const cells = matches && [...matches.keys()].filter((cell) => matches[cell]);
  const counts = book.phases.map(() => 0);
  cells?.forEach((cell) => counts[rows[cell][AT.phase]]++);
  for (const phase of document.querySelectorAll("details.phase")) {
    phase.hidden = matches !== null && counts[phase.dataset.phase] === 0;
    phase.querySelector(":scope > .tables").textContent = "";
    if (phase.open && !phase.hidden) fillPhase(phase);
  }
  for (const group of document.querySelectorAll("details.scenario, section.suite")) {
    group.hidden = matches !== null && !group.querySelector("details.phase:not([hidden])");
  }
  byId("f-count").textContent = cells ? `${grouped(cells.length)} of ${grouped(rows.length)} cells` : `${grouped(rows.length)} cells`;
  byId("f-clear").disabled = matches === null;
  showMatches(cells);
  if (cells && cells.length > 0 && cells.length <= 500) openMatching();
}

/** Few cells are shown at once. */
function openMatching() {
  for (const details of document.querySelectorAll("details.scenario:not([hidden]), details.phase:not([hidden])")) {
    details.open = true;
  }
}

/** Lays out a phase's tables. */
function fillPhase(phase) {
  const place = phase.querySelector(":scope > .tables");
  if (!place.firstChild) place.innerHTML = phaseHtml(Number(phase.dataset.phase), matches);
}

/** The controls say what is chosen. */
function showChosen() {
  byId("f-text").value = chosen.text;
  for (const name of ["rule", "network", "family", "transport"]) byId(`f-${name}`).value = chosen[name];
  for (const chip of byId("f-verdicts").children) chip.setAttribute("aria-pressed", chosen.verdict.has(chip.dataset.verdict));
}

/** The address says what is chosen. */
function writeAddress() {
  const query = new URLSearchParams();
  for (const name of ["text", "rule", "network", "family", "transport"]) if (chosen[name]) query.set(name, chosen[name]);
  if (chosen.verdict.size) query.set("verdict", [...chosen.verdict].join());
  history.replaceState(null, "", `#${query}`);
}

/** Takes filters from the address. Whether there were any. */
function readAddress() {
  const query = new URLSearchParams(location.hash.slice(1));
  for (const name of ["text", "rule", "network", "family", "transport"]) chosen[name] = query.get(name) || "";
  chosen.verdict = new Set((query.get("verdict") || "").split(",").filter((verdict) => book.verdicts.includes(verdict)));
  showChosen();
  return [...query.keys()].length > 0;
}

function wireFilters() {
  const changed = () => { showChosen(); writeAddress(); applyFilters(); };
  let waiting = 0;
  byId("f-text").addEventListener("input", (event) => {
    chosen.text = event.target.value;
    clearTimeout(waiting); // a letter at a time would look 27,000 cells through for each
    waiting = setTimeout(() => { writeAddress(); applyFilters(); }, 150);
  });
  for (const name of ["rule", "network", "family", "transport"]) {
    byId(`f-${name}`).addEventListener("change", (event) => { chosen[name] = event.target.value; changed(); });
  }
  byId("f-verdicts").addEventListener("click", (event) => {
    const verdict = event.target.closest("button")?.dataset.verdict;
    if (!verdict) return;
    if (!chosen.verdict.delete(verdict)) chosen.verdict.add(verdict);
    changed();
  });
  byId("f-clear").addEventListener("click", () => {
    Object.assign(chosen, { text: "", verdict: new Set(), rule: "", network: "", family: "", transport: "" });
    changed();
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
}
