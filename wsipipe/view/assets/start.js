// The page to start from: choose slides and options, start, watch, look, score, read.
const $ = (id) => document.getElementById(id);
const state = { chosen: new Map(), choices: null, open: new Set(), names: new Set(), folder: "" };
const EVERY = 1500;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const told = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (told.error) throw new Error(told.error);
  return told;
}

function complain(error) {
  $("problem").hidden = !error;
  $("problem").textContent = error ? error.message : "";
}

// --- slides

const bytes = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} MB` : `${Math.ceil(n / 1e3)} kB`);

async function list(path) {
  let found;
  try { found = await ask(`folder?path=${encodeURIComponent(path)}`); } catch (error) { return complain(error); }
  complain(null);
  state.folder = found.path;
  $("crumbs").replaceChildren(...found.crumbs.map((c) => make("button", { type: "button", textContent: `${c.name} ›`, onclick: () => list(c.path) })));
  const slides = found.entries.filter((e) => !e.folder);
  const rows = found.entries.map((e) => (e.folder ? folderRow(e) : slideRow(e)));
  if (slides.length > 1) {
    const all = make("button", { type: "button", className: "all", textContent: "choose all", onclick: () => { slides.forEach(choose); list(state.folder); } });
    rows.unshift(make("div", { className: "item" }, make("i"), make("span", { className: "soft", textContent: `${slides.length} slides in this folder` }), all));
  }
  if (!rows.length) rows.push(make("div", { className: "item" }, make("i"), make("span", { className: "soft", textContent: "neither slides nor folders in here" })));
  if (found.more) rows.push(make("div", { className: "item" }, make("i"), make("span", { className: "soft", textContent: `and ${found.more} more, not shown` })));
  $("entries").replaceChildren(...rows);
}

function folderRow(entry) {
  const open = make("button", { type: "button", className: "open", textContent: entry.name, onclick: () => list(entry.path) });
  const whole = make("button", { type: "button", className: "all", textContent: "choose", title: "all slides in it", onclick: () => { choose(entry); } });
  return make("div", { className: "item folder", role: "listitem" }, make("i", { className: "box", ariaHidden: "true" }), open, whole);
}

function slideRow(entry) {
  const box = make("input", { type: "checkbox", checked: state.chosen.has(entry.path) });
  box.onchange = () => (box.checked ? choose(entry) : drop(entry.path));
  return make("label", { className: "item", role: "listitem" }, box, make("span", { textContent: entry.name }), make("small", { textContent: bytes(entry.size) }));
}

function choose(entry) {
  state.chosen.set(entry.path, entry);
  showChosen();
}

function drop(path) {
  state.chosen.delete(path);
  showChosen();
}

function showChosen() {
  const all = [...state.chosen.values()];
  $("chosen").hidden = !all.length;
  $("count").textContent = all.length;
  $("list").replaceChildren(...all.map((e) => {
    const away = make("button", { type: "button", className: "link", textContent: "×", title: "not this one", onclick: () => { drop(e.path); list(state.folder); } });
    return make("li", {}, e.folder ? `${e.name} (all slides in it)` : e.name, away);
  }));
  if (!$("name").dataset.own) $("name").value = suggested(all);
  showWhere();
}

function suggested(all) {
  if (!all.length) return "";
  const stem = all[0].name.replace(/\.[^.]+$/, "").replace(/[^\p{L}\p{N} _.()+-]/gu, "_").slice(0, 50).trim() || "run";
  const day = new Date().toISOString().slice(0, 10);
  const name = all.length > 1 ? `${stem} and ${all.length - 1} more ${day}` : `${stem} ${day}`;
  let free = name;
  for (let n = 2; state.names.has(free); n += 1) free = `${name} (${n})`;
  return free;
}

function showWhere() {
  const results = state.choices?.results ?? "";
  $("where").textContent = `${results}${results.includes("\\") ? "\\" : "/"}${$("name").value || "…"}`;
}

async function dropped(event) {
  event.preventDefault();
  $("drop").classList.remove("over");
  const lost = [];
  for (const file of event.dataTransfer.files) {
    const found = await ask(`find?name=${encodeURIComponent(file.name)}&size=${file.size}`);
    if (found.path) choose({ path: found.path, name: file.name, folder: false, size: file.size });
    else lost.push(file.name);
  }
  complain(lost.length ? new Error(`not found in the folders that this page was started with: ${lost.join(", ")}`) : null);
  list(state.folder);
}

// --- options

const WORDS = { int: "whole number", float: "number", str: "text", box: "x0,y0,x1,y1" };

function knobField(section, knob) {
  const id = `${section}-${knob.name}`;
  let input;
  if (knob.kind === "bool") input = make("input", { type: "checkbox", checked: knob.default === true });
  else if (knob.choices?.length) {
    input = make("select", {}, ...knob.choices.map((c) => make("option", { value: c, textContent: c, selected: c === knob.default })));
  } else {
    input = make("input", { autocomplete: "off", spellcheck: false, placeholder: knob.default ?? "as the model or slide says" });
    if (knob.kind === "int" || knob.kind === "float") input.inputMode = "decimal";
  }
  input.id = id;
  Object.assign(input.dataset, { section, name: knob.name, kind: knob.kind, default: JSON.stringify(knob.default ?? null) });
  const range = knob.high != null ? `${knob.low ?? "…"} to ${knob.high}` : knob.low >= 0.01 ? `at least ${knob.low}` : "";
  const notes = [knob.kind === "bool" || knob.choices?.length ? "" : WORDS[knob.kind], range, knob.unit].filter(Boolean);
  const label = make("label", { className: "field", htmlFor: id, title: knob.flag }, make("span", { textContent: `${shown(knob)} ` }), input);
  label.firstChild.append(make("em", { textContent: notes.join(", ") }));
  const said = knob.default == null || knob.default === "" || knob.kind === "bool" ? "" : ` Default: ${knob.default}${knob.unit ? ` ${knob.unit}` : ""}.`;
  return make("div", {}, label, make("p", { className: "soft", textContent: knob.help + said }));
}

const shown = (knob) => knob.name.replace(knob.unit ? /_(um2|um|px|gb)$/ : "", "").replaceAll("_", " ");

function showChoices(found) {
  $("model").replaceChildren(...found.models.map((m) => make("option", { value: m.name, textContent: m.name })));
  $("model").onchange = () => { $("model-about").textContent = found.models[$("model").selectedIndex].about; };
  $("model").onchange();
  for (const { section, heading, knobs } of found.sections) {
    $("first").append(...knobs.filter((k) => k.first).map((k) => knobField(section, k)));
    const others = knobs.filter((k) => !k.first);
    if (others.length) $("others").append(make("h3", { textContent: heading }), ...others.map((k) => knobField(section, k)));
  }
}

function settings() {
  const given = {};
  for (const input of document.querySelectorAll("[data-section]")) {
    const { section, name, kind } = input.dataset;
    const usual = JSON.parse(input.dataset.default);
    let value = input.value.trim();
    if (kind === "bool") value = input.checked;
    else if (value === "") continue;
    else if (kind === "int" || kind === "float") value = Number.isFinite(Number(value.replace(",", "."))) ? Number(value.replace(",", ".")) : value;
    else if (kind === "box") value = value.split(",").map(Number);
    if (value !== usual) (given[section] ??= {})[name] = value;
  }
  return given;
}

async function start() {
  complain(null);
  $("start").disabled = true;
  try {
    const run = await ask("runs", { name: $("name").value, slides: [...state.chosen.keys()], model: $("model").value, settings: settings() });
    state.chosen.clear();
    delete $("name").dataset.own;
    showChosen();
    list(state.folder);
    await showRuns();
    document.querySelector(`[data-run="${CSS.escape(run.name)}"]`)?.scrollIntoView({ block: "nearest" });
  } catch (error) {
    complain(error);
  } finally {
    $("start").disabled = false;
  }
}

// --- runs

const time = (s) => (s >= 3600 ? `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min` : s >= 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${s} s`);
const number = (v, digits = 0) => (v == null ? "" : v.toLocaleString("en", { maximumFractionDigits: digits }));

async function showRuns() {
  const runs = await ask("runs");
  $("no-runs").hidden = runs.length > 0;
  state.names = new Set(runs.map((r) => r.name));
  const active = document.activeElement?.dataset?.keep; // a menu that is open stays as it is
  if (active) return runs;
  $("runs").replaceChildren(...runs.map(runRow));
  return runs;
}

function act(run, action, body = {}) {
  return async () => {
    try { await ask(`runs/${encodeURIComponent(run.name)}/${action}`, body); complain(null); } catch (error) { complain(error); }
    document.activeElement?.blur();
    showRuns();
  };
}

function runRow(run) {
  const base = encodeURIComponent(run.name);
  const live = ["waiting", "running", "stopping"].includes(run.state);
  const finished = run.slides.filter((s) => s.cells != null).length;
  const about = [`${finished} of ${number(run.asked)} ${run.asked === 1 ? "slide or folder" : "slides or folders"}`, run.model, run.seconds != null && run.state !== "waiting" ? time(run.seconds) : ""];
  const head = make("header", {}, make("h3", { textContent: run.name }), make("span", { className: `state ${run.state}`, textContent: run.state }), make("span", { className: "soft", textContent: about.filter(Boolean).join(" · ") }));
  const row = make("div", { className: "run" }, head);
  row.dataset.run = run.name;
  if (live) row.append(make("div", { className: "bars" }, ...run.stages.map((s) => make("div", { className: "bar" }, make("span", { textContent: s.stage }), make("progress", { value: s.done, max: s.total || 1, ariaLabel: s.stage }), make("span", { textContent: `${number(s.done)} of ${number(s.total)}` })))));
  const acts = make("div", { className: "acts" });
  if (live) acts.append(make("button", { type: "button", textContent: "Stop", onclick: act(run, "stop") }));
  else acts.append(make("button", { type: "button", textContent: run.state === "done" ? "Run again" : "Go on", title: "what is done is not done twice", onclick: act(run, "again") }));
  if (run.report) acts.append(make("a", { href: `runs/${base}/report`, target: "_blank", textContent: "Report" }));
  if (!live && run.look) {
    const marker = make("select", { ariaLabel: "marker" }, ...state.choices.markers.map((m) => make("option", { value: m, textContent: m.toUpperCase() })));
    marker.dataset.keep = "1";
    acts.append(make("span", { className: "soft", textContent: "positive cells of" }), marker, make("button", { type: "button", textContent: "Score", onclick: () => act(run, "score", { marker: marker.value })() }));
  }
  acts.append(...run.scores.map((s, i) => make("a", { href: `runs/${base}/score/${i}`, target: "_blank", textContent: `${s.marker.toUpperCase()} of ${s.name}` })));
  row.append(acts);
  if (run.slides.length) row.append(slidesTable(run, base));
  if (run.state === "failed" && run.lines.length) row.append(make("p", { className: "failed", textContent: run.lines.at(-1) }));
  row.append(details(run));
  return row;
}

function slidesTable(run, base) {
  let look = -1;
  const rows = run.slides.map((s) => {
    if (s.cells != null) look += 1;
    const at = look;
    const link = s.cells == null || at >= run.look ? "" : make("a", { href: `look/${base}/${at}/`, target: "_blank", textContent: "look" });
    const note = [s.status === "failed" ? s.reason : "", ...(s.warnings ?? [])].filter(Boolean).join("; ");
    const cells = [s.name, number(s.cells), number(s.tissue_mm2, 2), number(s.cells_per_mm2)].map((t, i) => make("td", { textContent: t, className: i ? "n" : "" }));
    const row = make("tr", {}, ...cells, make("td", {}, link || (s.status === "pending" ? "to come" : s.status === "failed" ? "failed" : "")));
    return note ? [row, make("tr", { className: "note" }, make("td", { colSpan: 5, textContent: note }))] : [row];
  }).flat();
  const heads = ["slide", "cells", "tissue, mm²", "cells per mm²", ""].map((t, i) => make("th", { textContent: t, className: i && i < 4 ? "n" : "", scope: "col" }));
  return make("div", { className: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows)));
}

function details(run) {
  const more = make("details", { open: state.open.has(run.name) }, make("summary", { textContent: "What it says, and the command" }));
  more.ontoggle = () => (more.open ? state.open.add(run.name) : state.open.delete(run.name));
  more.append(make("p", { className: "soft", textContent: `In a terminal, this goes on: ${run.command}` }), make("pre", { textContent: run.lines.join("\n") || "nothing yet" }));
  return more;
}

async function watch() {
  let runs = [];
  try { runs = await showRuns(); } catch { /* the page outlives its server for a moment */ }
  const live = runs.some((r) => ["waiting", "running", "stopping"].includes(r.state));
  setTimeout(watch, live ? EVERY : 4 * EVERY);
}

state.choices = await ask("choices");
showChoices(state.choices);
showWhere();
$("start").onclick = start;
$("none").onclick = () => { state.chosen.clear(); showChosen(); list(state.folder); };
$("name").oninput = () => { $("name").dataset.own = "1"; showWhere(); };
for (const kind of ["dragover", "dragenter"]) addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", dropped);
await list("");
watch();
globalThis.wsipipe = { state, settings, list };
