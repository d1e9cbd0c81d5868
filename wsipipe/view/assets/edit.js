// Corrections: cells are chosen, given a class, deleted or drawn; regions are drawn. Every step is saved by the server at once
// (see editing.py), beside the cells, which stay as they are.

import { $, note } from "./panel.js";
import { paintRegions, showRegions } from "./regions.js";

const NEAR = 2;  // screen pixels between points of a line that is drawn
let view, told, mode = "choose", chosen = new Map(), line = null, busy = Promise.resolve();

// `given`: info, state, viewer, toBase, toScreen, goTo, ask, redraw, and corrected(told), which shows cells anew.
export async function startEditing(given) {
  view = given;
  $("pencil").hidden = false;
  $("pencil").addEventListener("click", toggle);
  for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => setMode(button.dataset.mode));
  $("relabel").addEventListener("click", () => relabel($("kind").value));
  $("kind").addEventListener("keydown", (event) => { if (event.key === "Enter") relabel($("kind").value); });
  for (const what of ["undo", "redo"]) $(what).addEventListener("click", () => send({ do: what }));
  for (const what of ["delete", "restore"]) $(what).addEventListener("click", () => act(what));
  view.viewer.addHandler("canvas-press", ({ position }) => { if (drawing()) line = [position]; });
  view.viewer.addHandler("canvas-drag", drag);
  view.viewer.addHandler("canvas-drag-end", dragEnd);
  view.viewer.addHandler("canvas-release", () => { if (line?.length < 3) line = null; });
  show(await (await fetch("edits")).json());
  return { click, key, paint, toggle, send, chosen: () => [...chosen.keys()], told: () => told };
}

const on = () => !$("edit").hidden;
const drawing = () => on() && mode !== "choose";

function toggle() {
  $("edit").hidden = on();
  $("pencil").setAttribute("aria-pressed", String(on()));
  document.body.classList.toggle("editing", on());
  if (on() && matchMedia("(max-width: 640px)").matches) $("panel").hidden = true;
  setMode("choose");
}

function setMode(next) {
  mode = next;
  line = null;
  chosen.clear();
  for (const button of document.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  document.body.classList.toggle("drawing", drawing());
  tell();
}

// Show what there is after a step.
function show(next) {
  told = next;
  $("undo").disabled = !told.undo;
  $("redo").disabled = !told.redo;
  const kinds = [...new Set([...told.classes.map((c) => c.name).filter((name) => name !== "no class"), ...told.regions.map((r) => r.kind)])];
  $("kinds-known").replaceChildren(...kinds.filter(Boolean).map((name) => new Option(name, name)));
  showRegions(told, { ...view, send });
  tell();
}

function tell(problem = told.problem && `Nothing can be corrected here: ${told.problem}`) {
  const parts = [];
  if (chosen.size) parts.push(`${chosen.size.toLocaleString("en")} chosen`);
  parts.push(told.told ? `${told.told}; kept in ${told.file}` : "Nothing is corrected. What is done here is kept beside the cells, which stay as they are.");
  $("edit-told").textContent = problem || parts.join(" · ");
  $("edit-told").classList.toggle("wrong", Boolean(problem));
  for (const id of ["relabel", "delete", "restore"]) $(id).disabled = !chosen.size;
  view.redraw();
}

// Steps are sent one after the other; what comes back is the state after the step, or one line that says why not.
function send(step) {
  busy = busy.then(async () => {
    let next;
    try { next = await post("edit", step); } catch { next = { error: "wsipipe does not answer: it was ended, or the connection is lost" }; }
    if (next.error) { tell(next.error); return; }
    const cells = next.revision !== told.revision;
    chosen.clear();
    show(next);
    if (cells) view.corrected(next);
  });
  return busy;
}

async function post(path, body) {
  return (await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) })).json();
}

const cells = () => [...chosen.values()].map(({ cell_id, x, y }) => ({ cell_id, x, y }));

function act(what) {
  if (chosen.size) send({ do: what, cells: cells() });
}

function relabel(kind) {
  if (chosen.size) send({ do: "relabel", cells: cells(), kind });
}

// --- choosing and drawing

function click(event) {
  if (!on()) return false;
  if (mode !== "choose") return true;
  const { x, y } = view.toBase(event.position), more = event.originalEvent.shiftKey;
  view.ask(x, y).then((cell) => {
    if (!more) chosen.clear();
    if (cell && chosen.has(cell.cell_id)) chosen.delete(cell.cell_id);
    else if (cell) chosen.set(cell.cell_id, cell);
    if (cell && !more) $("kind").value = cell.class ?? "";
    tell();
  });
  return true;
}

function drag(event) {
  if (!drawing()) return;
  event.preventDefaultAction = true;
  if (!line) line = [];
  const last = line.at(-1);
  if (!last || Math.hypot(event.position.x - last.x, event.position.y - last.y) >= NEAR) line.push(event.position);
  view.redraw();
}

async function dragEnd(event) {
  if (!drawing()) return;
  event.preventDefaultAction = true;
  const ring = (line ?? []).map((point) => view.toBase(point)).map(({ x, y }) => [+x.toFixed(2), +y.toFixed(2)]);
  line = null;
  view.redraw();
  if (ring.length < 3) return;
  if (mode === "cell") send({ do: "draw", ring, kind: $("kind").value });
  else if (mode === "region") { await send({ do: "region", ring, kind: "" }); $("regions").open = true; }
  else {
    const found = await post("select", { ring, hidden: [...view.state.hidden], where: view.state.where });
    if (found.error) { tell(found.error); return; }
    chosen = new Map(found.map((cell) => [cell.cell_id, cell]));
    if (!chosen.size) note("no cell lies in it");
    tell();
  }
}

const MODES = { v: "choose", m: "lasso", n: "cell", r: "region" };

// Return whether a key is of the corrections.
function key(event) {
  if (!on() || event.target.matches?.("input:not([type=checkbox], [type=range]), select")) return false;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") { send({ do: event.shiftKey ? "redo" : "undo" }); return true; }
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const named = /^[1-9]$/.test(event.key) && $("kinds-known").options[+event.key - 1];
  if (MODES[event.key]) setMode(MODES[event.key]);
  else if (named && chosen.size) { $("kind").value = named.value; relabel(named.value); }
  else if (event.key === "Enter" && chosen.size) relabel($("kind").value);
  else if (["Delete", "Backspace"].includes(event.key)) act("delete");
  else if (event.key === "Escape" && (chosen.size || line)) { chosen.clear(); line = null; tell(); }
  else return false;
  return true;
}

// --- what is drawn over the slide

function paint(ctx) {
  paintRegions(ctx, view.toScreen);
  if (!on()) return;
  ctx.beginPath();
  for (const { outline } of chosen.values()) trace(ctx, outline.map(([x, y]) => view.toScreen(x, y)));
  ctx.fillStyle = "#ffe45c40";
  ctx.fill();
  for (const [width, colour] of [[4, "#221d2c"], [2, "#ffe45c"]]) { ctx.lineWidth = width; ctx.strokeStyle = colour; ctx.stroke(); }
  if (!line) return;
  ctx.beginPath();
  trace(ctx, line, false);
  for (const [width, colour] of [[4, "#ffffffb0"], [2, "#5b3f94"]]) { ctx.lineWidth = width; ctx.strokeStyle = colour; ctx.stroke(); }
}

function trace(ctx, points, closed = true) {
  points.forEach(({ x, y }, k) => (k ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
  if (closed) ctx.closePath();
}
