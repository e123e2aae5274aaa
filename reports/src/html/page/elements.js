// Small things that everybody needs.

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
/** Text as HTML. */
const esc = (text) => String(text).replace(/[&<>"']/g, (c) => ESCAPES[c]);
const byId = (id) => document.getElementById(id);
const grouped = (number) => number.toLocaleString("en");

/** Milliseconds for people. */
function duration(ms) {
  const minus = ms < 0 ? "−" : "";
  const size = Math.abs(ms);
  if (size < 1000) return `${minus}${size} ms`;
  if (size < 60000) return `${minus}${(size / 1000).toFixed(1)} s`;
  return `${minus}${Math.floor(size / 60000)} min ${String(Math.floor((size % 60000) / 1000)).padStart(2, "0")} s`;
}

const SIGNS = { pass: "✓", fail: "✕", unstable: "~", error: "?", skip: "–", known: "k", fixed: "f" };
/** A verdict with its sign. */
const badge = (verdict) =>
  `<span class="badge v-${verdict}"><span class="sign" aria-hidden="true">${SIGNS[verdict]}</span>${verdict}</span>`;

/** A button that opens a cell's evidence. */
const opener = (cell, label) => `<button type="button" class="link" data-cell="${cell}">${esc(label)}</button>`;

/** Copies text; says so on the button. */
async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy by hand";
  }
}
