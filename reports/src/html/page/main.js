// Wiring.

const THEMES = ["auto", "light", "dark"];
const THEME_NAMES = { auto: "as the system says", light: "light", dark: "dark" };

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-label", `Theme: ${THEME_NAMES[theme]}`);
  byId("theme").textContent = { auto: "◐", light: "☀", dark: "☾" }[theme];
}

function wireTheme() {
  const KEY = "udn-conformance-theme";
  let theme = "auto";
  try { theme = localStorage.getItem(KEY) || "auto"; } catch { /* a page from a file may have no storage */ }
  setTheme(THEMES.includes(theme) ? theme : "auto");
  byId("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
    setTheme(next);
    try { localStorage.setItem(KEY, next); } catch { /* then it lasts as long as the page */ }
  });
}

/** What the address asks for: a cell, or filters. */
function follow() {
  if (location.hash.startsWith("#cell=")) {
    const written = location.hash.slice("#cell=".length);
    let id = written;
    try { id = decodeURIComponent(written); } catch { /* then it is the id itself */ }
    const cell = cellOf(id);
    if (cell !== undefined) showEvidence(cell);
  } else if (readAddress()) {
    applyFilters();
    byId("filters").scrollIntoView();
  }
}

document.addEventListener("click", (event) => {
  const cell = event.target.closest?.("[data-cell]")?.dataset.cell;
  if (cell !== undefined) showEvidence(Number(cell));
  if (event.target.id === "evidence") event.target.close(); // beside the dialog
});
document.addEventListener("keydown", moveInMatrix);
document.addEventListener("mouseover", (event) => {
  const button = event.target.closest?.("button.c");
  if (button && !button.title) button.title = button.getAttribute("aria-label");
});
// `toggle` does not bubble, but it can be caught on its way down.
document.addEventListener("toggle", (event) => {
  if (event.target.matches?.("details.phase") && event.target.open) fillPhase(event.target);
  if (event.target.matches?.("details.scenario") && event.target.open) {
    const phases = event.target.querySelectorAll(":scope > details.phase:not([hidden])");
    if (phases.length === 1) phases[0].open = true;
  }
}, true);
byId("evidence").addEventListener("close", () => {
  if (location.hash.startsWith("#cell=")) history.replaceState(null, "", "#");
});
window.addEventListener("hashchange", follow);

wireTheme();
offerFilters();
wireFilters();
showFindings();
applyFilters();
follow();
// For those who measure: how long it took from the navigation until everything is there.
document.documentElement.dataset.ready = Math.round(performance.now());
