// The evidence of one cell, in a dialog of its own.

function definition(name, html) {
  return html ? `<dt>${name}</dt><dd>${html}</dd>` : "";
}

/** Attempts with their times, as a table and on one axis. */
function attemptsTable(cell) {
  const attempts = cellAttempts(cell);
  if (attempts.length === 0) return "<p class='dim'>Nothing was tried.</p>";
  const from = Math.min(0, ...attempts.map((attempt) => attempt.first));
  const to = Math.max(1, ...attempts.map((attempt) => attempt.last));
  const part = (ms) => (100 * ms) / (to - from);
  const witnessed = rows[cell][AT.witness];
  const line = (attempt) => {
    const when = attempt.count > 1 ? `${duration(attempt.first)} to ${duration(attempt.last)}` : duration(attempt.first);
    const took = attempt.took === null ? "" : `${(attempt.took / 1000).toFixed(3)} ms`;
    const arrived = witnessed || attempt.arrived ? `${attempt.arrived} of ${attempt.count}` : "not looked for";
    return `<tr><td class="number">${attempt.count}</td><td>${when}
      <span class="axis" aria-hidden="true"><span style="left:${part(attempt.first - from)}%;width:${part(attempt.last - attempt.first)}%"></span></span></td>
      <td>${esc(attempt.outcome)}</td><td class="number">${took}</td><td>${arrived}</td></tr>`;
  };
  return `<div class="scroll" tabindex="0" role="region" aria-label="Attempts"><table class="plain attempts">
    <thead><tr><th scope="col">tries</th><th scope="col">after the phase's actions</th><th scope="col">this side saw</th>
    <th scope="col">the last took</th><th scope="col">arrived at the other side</th></tr></thead>
    <tbody>${attempts.map(line).join("")}</tbody></table></div>`;
}

function probeText(cell) {
  const probe = rows[cell][AT.probe];
  if (!probe) return "";
  const [from, to, port, question, reach] = probe;
  const text = (number) => esc(book.strings[number]);
  return `from ${text(from)} to <code>${text(to)}</code>${port ? `, port ${port - 1}` : ""}` +
    (question ? `, asking for ${text(question)}` : "") + (reach ? `, to be answered by ${text(reach)}` : "");
}

function controlText(cell, at) {
  const id = cellText(cell, at);
  const control = id ? cellOf(id) : undefined;
  return control === undefined ? esc(id) : opener(control, id);
}

function flowText(cell) {
  const flow = rows[cell][AT.flow];
  if (!flow) return "";
  return `${esc(flow[0])}<details><summary>All figures</summary><pre>${esc(JSON.stringify(flow[1], null, 1))}</pre></details>`;
}

function evidenceHtml(cell) {
  const rule = cellText(cell, AT.rule);
  const [promise, sources, upstream] = book.rules[rule] || ["", "", ""];
  const settled = rows[cell][AT.settled];
  const notes = rows[cell][AT.notes] || [];
  const command = cellCommand(cell);
  return `<div class="head"><h2 id="evidence-title">${badge(cellVerdict(cell))} ${esc(cellAbout(cell))}</h2>
    <button type="button" id="evidence-close" aria-label="Close">✕</button></div>
    <dl class="facts">
    ${definition("cell", `<code class="id">${esc(cellId(cell))}</code> <a class="dim" href="#cell=${encodeURIComponent(cellId(cell))}">link</a>`)}
    ${definition("because", esc(cellText(cell, AT.reason)))}
    ${definition("expected", esc(cellText(cell, AT.expected) || cellText(cell, AT.expectation)))}
    ${definition("observed", esc(cellText(cell, AT.observed)))}
    ${definition("rule", `<code>${esc(rule)}</code> ${esc(promise)}${sources ? `<br><span class="dim">promised by: ${esc(sources)}${upstream ? `; ${esc(upstream)}` : ""}</span>` : ""}`)}
    ${definition("settled", settled ? `after ${duration(settled - 1)}` : "never")}
    ${definition("probe", probeText(cell))}
    ${definition("flow", flowText(cell))}
    </dl>
    <h3>Attempts</h3>${attemptsTable(cell)}
    <dl class="facts">
    ${definition("other side", esc(cellText(cell, AT.witness)))}
    ${definition("control of the vantage point", controlText(cell, AT.vantage))}
    ${definition("control of the listener", controlText(cell, AT.listener))}
    ${definition("network", esc([cellText(cell, AT.topology), cellText(cell, AT.placement), cellText(cell, AT.networks)].filter(Boolean).join(", ")))}
    ${definition("needs", esc(cellText(cell, AT.requires)))}
    </dl>
    ${command ? `<h3>Repeat it</h3><div class="command"><pre tabindex="0">${esc(command)}</pre><button type="button" id="evidence-copy">Copy</button></div>` : ""}
    ${notes.length ? `<h3>Notes</h3>${notes.map((note) => `<pre tabindex="0">${esc(book.strings[note])}</pre>`).join("")}` : ""}`;
}

/** Shows a cell's evidence. */
function showEvidence(cell) {
  const dialog = byId("evidence");
  dialog.innerHTML = evidenceHtml(cell);
  dialog.scrollTop = 0;
  byId("evidence-close").addEventListener("click", () => dialog.close());
  byId("evidence-copy")?.addEventListener("click", (event) => copy(event.target, cellCommand(cell)));
  if (!dialog.open) dialog.showModal();
}
