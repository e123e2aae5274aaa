// Cells as lists: what does not hold, alike cells together; and what the filters select.

const AT_ONCE = 100;

/** Cells that do not hold, alike ones together, worst first. */
function findings() {
  const kinds = new Map();
  rows.forEach((row, cell) => {
    const verdict = cellVerdict(cell);
    if (!BAD.includes(verdict)) return;
    const key = [BAD.indexOf(verdict), row[AT.rule], row[AT.expectation], row[AT.observed]].join();
    kinds.has(key) ? kinds.get(key).push(cell) : kinds.set(key, [cell]);
  });
  const worst = (cells) => BAD.indexOf(cellVerdict(cells[0]));
  return [...kinds.values()].sort((one, other) => worst(one) - worst(other) || other.length - one.length);
}

function findingHtml(cells) {
  const cell = cells[0];
  const [verdict, rule] = [cellVerdict(cell), cellText(cell, AT.rule)];
  const phases = [...new Set(cells.map((of) => rows[of][AT.phase]))].map((phase) => book.phases[phase].join("::"));
  const more = cells.length === 1 ? "" :
    ` <a href="#verdict=${verdict}&rule=${encodeURIComponent(rule)}">all of this rule</a>`;
  return `<article class="finding">
    <h3>${badge(verdict)} ${grouped(cells.length)} ${cells.length === 1 ? "cell" : "cells"}: expected ${esc(cellText(cell, AT.expectation))}, observed ${esc(cellText(cell, AT.observed))}</h3>
    <p><code>${esc(rule)}</code> ${esc((book.rules[rule] || [""])[0])}</p>
    <p class="dim">in ${esc(phases.slice(0, 4).join(", "))}${phases.length > 4 ? ` and ${phases.length - 4} more phases` : ""}</p>
    <p>${cells.length > 1 ? "for one " : ""}${opener(cell, cellAbout(cell))}${more}</p>
    ${cellText(cell, AT.reason) ? `<p class="reason">${esc(cellText(cell, AT.reason))}</p>` : ""}</article>`;
}

function showFindings() {
  const kinds = findings();
  byId("findings").hidden = kinds.length === 0;
  if (kinds.every((cells) => cellVerdict(cells[0]) === "known")) byId("findings-title").textContent = "Known issues";
  more(byId("findings-list"), kinds, findingHtml, 20);
}

function matchHtml(cell) {
  return `<li>${badge(cellVerdict(cell))} ${opener(cell, cellId(cell))}
    <span class="dim">expected ${esc(cellText(cell, AT.expectation))}, observed ${esc(cellText(cell, AT.observed))}</span></li>`;
}

/** The list of cells that the filters select. */
function showMatches(cells) {
  const place = byId("matches");
  place.hidden = cells === null || cells.length === 0;
  if (cells === null) return;
  const sorted = [...cells].sort((one, other) => rank(one) - rank(other) || one - other);
  place.innerHTML = "<details class='matches'><summary>As a list</summary><ul></ul></details>";
  const list = place.querySelector("ul");
  place.querySelector("details").addEventListener("toggle", () => {
    if (!list.firstChild) more(list, sorted, matchHtml, AT_ONCE);
  });
}

/** Worst first; what holds last. */
function rank(cell) {
  const at = BAD.indexOf(cellVerdict(cell));
  return at < 0 ? BAD.length : at;
}

/** Fills a place with items, some at a time. */
function more(place, items, html, atOnce) {
  let shown = 0;
  const next = () => {
    place.querySelector(":scope > .more")?.remove();
    place.insertAdjacentHTML("beforeend", items.slice(shown, shown + atOnce).map(html).join(""));
    shown += atOnce;
    if (shown >= items.length) return;
    const tag = place.tagName === "UL" ? "li" : "p";
    place.insertAdjacentHTML("beforeend", `<${tag} class="more"><button type="button">${grouped(items.length - shown)} more</button></${tag}>`);
    place.querySelector(":scope > .more button").addEventListener("click", next);
  };
  place.textContent = "";
  next();
}
