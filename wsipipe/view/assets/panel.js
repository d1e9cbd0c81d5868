// What stands around the slide: panel, scale bar, tooltip, short notes.

export const $ = (id) => document.getElementById(id);

const NAMES = { area_um2: "area", perimeter_um: "perimeter", hematoxylin_od_mean: "haematoxylin, mean OD",
  hematoxylin_od_std: "haematoxylin, spread", eosin_od_mean: "eosin, mean OD", eosin_od_std: "eosin, spread",
  dab_od_mean: "DAB, mean OD", dab_od_std: "DAB, spread",
  class_probability: "probability of class" };
const UNITS = { area_um2: "µm²", perimeter_um: "µm" };

// Return an element with these properties and children.
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const title = (name) => NAMES[name] ?? name.replaceAll("_", " ");
export const number = (n) => (Math.abs(n) >= 1000 ? Math.round(n).toLocaleString("en") : String(+n.toPrecision(3)));

// Fill the panel from what the server knows; changed(what) is called when something is switched.
export function fillPanel(info, state, changed) {
  document.title = `${info.name} · wsipipe`;
  $("name").textContent = info.name;
  const size = info.size.map((side) => side.toLocaleString("en")).join(" × ");
  const parts = [`${size} px`];
  if (info.mpp) parts.push(`${number(info.mpp[0])} µm/px`);
  if (info.cells !== undefined) parts.push(`${info.cells.toLocaleString("en")} cells${info.model ? ` (${info.model})` : ""}`);
  $("about").textContent = parts.join(" · ");
  if (info.warnings.length) {
    $("warnings").textContent = info.warnings.join(" ");
    $("warnings").hidden = false;
  }
  info.stains.forEach((name, k) => $("stain").append(new Option(`${name} alone`, String(k))));
  $("stains").hidden = !info.stains.length;
  bind("stain", "change", (e) => { state.stain = e.value; changed("stain"); });
  $("areas").hidden = !info.areas.length;
  info.areas.forEach((entry, code) => $("kinds").append(legendRow({ ...entry, count: entry.areas }, code, state.hiddenAreas, () => changed("areas"))));
  bind("areas-on", "change", (e) => { state.areas = e.checked; changed("opacity"); });
  bind("areas-opacity", "input", (e) => { state.areasOpacity = +e.value; changed("opacity"); });
  if (info.cells === undefined) return;
  $("layers").hidden = false;
  for (const name of info.measures) $("by").append(new Option(title(name), name));
  showClasses(info, state, changed);
  bindCells(state, changed);
}

// List the classes of cells, as many as there are now.
export function showClasses(info, state, changed) {
  const derived = info.classes.some((entry) => entry.name.includes(": "));  // of those, "Tumor: 2+" without a cell only fills the list
  const rows = info.classes.map((entry, code) => [entry, code]).filter(([entry]) => entry.cells || (!derived && entry.name !== "no class"));
  $("classes").replaceChildren(...rows.map(([entry, code]) => legendRow({ ...entry, count: entry.cells }, code, state.hidden, () => changed("classes"))));
}

function bindCells(state, changed) {
  bind("cells-on", "change", (e) => { state.cells = e.checked; changed("opacity"); });
  bind("cells-opacity", "input", (e) => { state.cellsOpacity = +e.value; changed("opacity"); });
  bind("filled", "change", (e) => { state.filled = e.checked; changed("cells"); });
  bind("density-on", "change", (e) => { state.density = e.checked; changed("density"); });
  bind("density-opacity", "input", (e) => { state.densityOpacity = +e.value; changed("opacity"); });
  bind("by", "change", (e) => { state.by = e.value; changed("cells"); });
}

// Show in the panel what the state says (after a link was followed).
export function showState(state) {
  $("cells-on").checked = state.cells;
  $("density-on").checked = state.density;
  $("filled").checked = state.filled;
  $("by").value = state.by;
  $("stain").value = state.stain;
  $("areas-on").checked = state.areas;
}

function bind(id, event, act) {
  $(id).addEventListener(event, () => act($(id)));
}

function legendRow(entry, code, hidden, changed) {
  const row = document.createElement("label"), box = document.createElement("input"), dot = document.createElement("b");
  box.type = "checkbox";
  box.checked = !hidden.has(code);
  dot.style.background = `rgb(${entry.colour.join(",")})`;
  row.append(box, dot, text("span", entry.name), text("span", entry.count.toLocaleString("en")));
  box.addEventListener("change", () => {
    if (box.checked) hidden.delete(code);
    else hidden.add(code);
    changed();
  });
  return row;
}

function text(tag, content) {
  const made = document.createElement(tag);
  made.textContent = content;
  return made;
}

// Show what is known of a cell beside the pointer.
export function showTip(cell, info, at, pinned) {
  const tip = $("tip"), entry = info.classes.find((c) => c.name === (cell.class ?? "no class"));
  const head = document.createElement("h2"), list = document.createElement("dl"), dot = document.createElement("b");
  if (entry) dot.style.background = `rgb(${entry.colour.join(",")})`;
  head.append(dot, cell.class ?? "cell");
  for (const name of info.measures) {
    const value = cell[name];
    const told = typeof value === "number" ? `${number(value)}${UNITS[name] ? ` ${UNITS[name]}` : ""}` : "–";
    list.append(text("dt", title(name)), text("dd", told));
  }
  const foot = `${cell.drawn ? "Drawn by hand. " : ""}${cell.oversize ? "Cut out of a larger object. " : ""}x ${number(cell.x)}, y ${number(cell.y)} px`;
  tip.replaceChildren(head, list, text("small", pinned ? `${foot} · ${cell.cell_id}` : foot));
  tip.classList.toggle("pinned", pinned);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect(), gap = 16;
  const left = at.x + gap + width > innerWidth ? at.x - gap - width : at.x + gap;
  const top = Math.min(at.y + gap, innerHeight - height - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

export function hideTip() {
  $("tip").hidden = true;
}

// Return a round length in µm of at most `most`, its text, and its share of `most`.
export function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  const microns = [5, 2, 1].map((s) => s * power).find((v) => v <= most * (1 + 1e-9));
  const told = microns >= 1000 ? `${microns / 1000} mm` : `${+microns.toPrecision(3)} µm`;
  return { microns, told, share: microns / most };
}

// Draw the scale bar for `um` microns per screen pixel.
export function showScale(um) {
  const most = 160, { told, share } = roundLength(most * um);
  $("scale").hidden = false;
  $("scale").firstElementChild.textContent = told;
  $("scale").lastElementChild.style.width = `${share * most}px`;
}

let fading;

export function note(line) {
  $("note").textContent = line;
  $("note").hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => { $("note").hidden = true; }, 2200);
}
