// The page for labelling: one cell at a time, the least certain first; every answer is learned from at once.

const $ = (id) => document.getElementById(id);
const ZOOMS = [30, 50, 80, 140, 300, 700];  // µm
const view = { zoom: 2, bare: false, whole: location.hash === "#slide", opened: null };  // opened: the slide in the frame
let state, busy = false;

const picture = (cell) => `picture/${cell}.jpg?um=${ZOOMS[view.zoom]}&bare=${+view.bare}&after=${state.labelled}`;
const percent = (share) => (share === undefined ? "–" : `${Math.round(100 * share)} %`);

function made(tag, text = "", more = {}) {
  const node = Object.assign(document.createElement(tag), more);
  if (text) node.textContent = text;
  return node;
}

function show(next) {
  state = next;
  $("picture").hidden = state.cell === null || view.whole;
  $("viewer").hidden = state.cell === null || !view.whole;
  $("end").hidden = state.cell !== null;
  if (state.cell === null) $("end").textContent = "There is no cell left to ask for.";
  else look();
  $("slide").textContent = state.slide;
  $("whole").setAttribute("aria-pressed", String(view.whole));
  $("bare").disabled = view.whole;
  $("undo").disabled = !state.undo;
  $("choices").replaceChildren(...state.classes.map(choice));
  tell();
}

function look() {
  if (view.whole) { lookAtSlide(); return; }
  $("picture").src = picture(state.cell);
  for (const cell of state.ahead.slice(0, 1)) new Image().src = picture(cell);
}

// The slide itself in the viewer, at the cell: a click there asks for another one.
async function lookAtSlide() {
  const { slide } = state.place, frame = $("viewer");
  if (view.opened !== slide) {
    view.opened = slide;
    frame.onload = () => frame.contentWindow.addEventListener("keydown", key, true);
    frame.src = `slide/${slide}/`;
  }
  const inside = await opened(frame, slide);
  if (!inside || state.place?.slide !== slide) return;
  inside.ask(state.place, ZOOMS[view.zoom] / state.place.mpp / Math.max(1, frame.clientWidth));
}

// Return what the viewer of a slide offers once it is open; nothing when another one was opened meanwhile.
async function opened(frame, slide) {
  for (;;) {
    if (view.opened !== slide || frame.contentDocument.contentType === "text/plain") return null;  // or one line says why not
    const inside = frame.contentWindow.location.pathname.endsWith(`/slide/${slide}/`) ? frame.contentWindow.wsipipe : null;
    if (inside?.viewer.world.getItemCount()) {
      if (!inside.heard) inside.viewer.addHandler("canvas-click", (event) => pick(inside, slide, event));
      inside.heard = true;
      return inside;
    }
    await new Promise((done) => { setTimeout(done, 50); });
  }
}

async function pick({ viewer }, slide, event) {
  if (!event.quick) return;
  const { x, y } = viewer.world.getItemAt(0).viewerElementToImageCoordinates(event.position);
  const cell = await (await fetch(`slide/${slide}/cell?x=${x}&y=${y}`)).json();
  if (cell) send("ask", { slide, id: cell.cell_id });
}

function choice({ name, colour }, k) {
  const button = made("button"), dot = made("b"), bar = made("i"), p = state.probabilities[name];
  dot.style.background = `rgb(${colour.join(",")})`;
  bar.style.width = `${100 * (p ?? 0)}%`;
  button.append(made("kbd", k < 9 ? String(k + 1) : ""), dot, made("span", name), made("small", p === undefined ? "" : percent(p), { className: "soft" }), bar);
  button.disabled = state.cell === null;
  button.addEventListener("click", () => answer(name));
  return button;
}

function tell() {
  const { scores } = state, line = $("score");
  if (scores.why) line.replaceChildren(made("span", `${scores.why[0].toUpperCase()}${scores.why.slice(1)}.`, { className: "soft" }));
  else {
    line.replaceChildren(made("strong", percent(scores.balanced_accuracy)), ` balanced accuracy (guessing: ${percent(scores.guessing)})`,
      made("br"), made("span", scores.where + (scores.one ? "; cells of more slides tell more" : ""), { className: "soft small" }));
  }
  $("table").tBodies[0].replaceChildren(...state.classes.map((c) => {
    const row = made("tr");
    row.append(made("td", c.name), ...[String(c.labelled), percent(c.recall), percent(c.precision), percent(c.share)].map((t) => made("td", t)));
    return row;
  }));
  const some = state.candidates < state.cells ? `, asked among ${state.candidates.toLocaleString("en")} of them` : "";
  const saved = state.saved ? `Kept in ${state.saved}.` : "Nothing is kept yet.";
  $("told").textContent = `${state.labelled} labelled on ${state.slides} of ${state.of} slides with ${state.cells.toLocaleString("en")} cells${some}. ${saved}`;
}

async function send(where, what = {}) {
  if (busy) return;
  busy = true;
  document.body.style.cursor = "progress";
  try {
    const response = await fetch(where, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(what) });
    const told = await response.json();
    $("error").hidden = response.ok;
    if (response.ok) show(told);
    else $("error").textContent = told.error;
  } catch {
    $("error").hidden = false;
    $("error").textContent = "wsipipe does not answer: it was ended, or the connection is lost";
  } finally {
    busy = false;
    document.body.style.cursor = "";
  }
}

function answer(kind) {
  if (state.cell !== null) send("answer", { cell: state.cell, kind });
}

function zoom(by) {
  view.zoom = Math.min(ZOOMS.length - 1, Math.max(0, view.zoom + by));
  look();
}

function bare() {
  view.bare = !view.bare;
  $("bare").setAttribute("aria-pressed", String(view.bare));
  look();
}

function whole() {
  view.whole = !view.whole;
  history.replaceState(null, "", view.whole ? "#slide" : location.pathname);
  show(state);
}

$("whole").addEventListener("click", whole);
$("pass").addEventListener("click", () => answer(""));
$("undo").addEventListener("click", () => send("undo"));
$("bare").addEventListener("click", bare);
$("nearer").addEventListener("click", () => zoom(-1));
$("farther").addEventListener("click", () => zoom(1));
$("new").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (name) send("class", { name });
  $("name").value = "";
  $("name").blur();
});
const keys = { " ": () => answer(""), u: () => send("undo"), v: whole, o: bare, "+": () => zoom(-1), "-": () => zoom(1) };
addEventListener("keydown", key);

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input")) return;
  const kind = /^[1-9]$/.test(event.key) ? state.classes[+event.key - 1] : null;
  if (kind) answer(kind.name);
  else if (keys[event.key]) keys[event.key]();
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();  // in the viewer, whose keys come second
}

show(await (await fetch("state")).json());
globalThis.labelling = { view, state: () => state };  // for tests
