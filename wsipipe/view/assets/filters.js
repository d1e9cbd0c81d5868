// Filters of cells. The text of conditions is the truth (the same that `wsipipe convert --where` takes); rows of sliders and
// boxes show what it says of a column, and change it.

import { $, make, number, title } from "./panel.js";

const STEPS = 1000, WAIT = 150;
let info, state, changed, rows = new Map(), waiting;

export function showFilters(about, shown, act) {
  [info, state, changed] = [about, shown, act];
  for (const name of info.filters) $("filter-add").append(new Option(title(name), name));
  $("filter-add").addEventListener("change", () => { add($("filter-add").value); $("filter-add").value = ""; });
  $("where").addEventListener("change", () => { state.where = $("where").value.trim(); read(); tell(); });
  addEventListener("hashchange", () => { if ($("where").value !== state.where) { read(); tell(); } });
  read();
  if (state.where) { $("filters").open = true; tell(false); }
}

// Return what the text says of each column: [sign, value] pairs.
function parsed(text) {
  const found = new Map();
  for (const part of text.split(",")) {
    const [, column, sign, value] = part.match(/^\s*([^<>=]+?)\s*(>=|<=|>|<|=)\s*([^<>=]+?)\s*$/) ?? [];
    if (!info.filters.includes(column)) continue;
    if (!found.has(column)) found.set(column, []);
    found.get(column).push([sign, value]);
  }
  return found;
}

function read() {
  $("where").value = state.where;
  const said = parsed(state.where);
  for (const name of rows.keys()) if (!said.has(name)) drop(name);
  for (const [name, conditions] of said) { if (!rows.has(name)) add(name); rows.get(name).show(conditions); }
}

function drop(name) {
  rows.get(name).element.remove();
  rows.delete(name);
}

// Write what all rows say, and show these cells once nothing has moved for a moment.
function write() {
  state.where = [...rows.values()].map((row) => row.text()).filter(Boolean).join(", ");
  $("where").value = state.where;
  clearTimeout(waiting);
  waiting = setTimeout(tell, WAIT);
}

async function tell(redraw = true) {
  const parts = new URLSearchParams({ where: state.where, hide: [...state.hidden].join(",") });
  const told = await (await fetch(`count?${parts}`)).json();
  $("where-told").textContent = told.error?.replace(/^--where: /, "") ?? `${told.cells.toLocaleString("en")} of ${told.of.toLocaleString("en")} cells`;
  $("where-told").classList.toggle("wrong", Boolean(told.error));
  if (told.error) return;
  if (redraw) changed();
}

function add(name) {
  if (!name || rows.has(name)) return;
  const away = make("button", { type: "button", textContent: "×", title: `no filter by ${title(name)}`, onclick: () => { drop(name); write(); } });
  const element = make("div", { className: "filter" }, make("header", {}, make("span", { textContent: title(name) }), away));
  element.dataset.column = name;
  const row = info.flags.includes(name) ? words(name, ["no", "yes"]) : name === "quality" ? words(name, info.qualities) : range(name);
  element.append(row.body);
  rows.set(name, { ...row, element });
  $("filter-rows").append(element);
}

// A box for each word; all of them are no condition.
function words(name, all) {
  const boxes = all.map((word) => make("input", { type: "checkbox", checked: true, onchange: write }));
  const body = make("div", { className: "words" }, ...all.map((word, k) => make("label", {}, boxes[k], word)));
  return {
    body,
    text: () => (boxes.every((box) => box.checked) ? "" : `${name}=${all.filter((_, k) => boxes[k].checked).join("|") || "-1"}`),
    show(conditions) {
      const named = conditions.find(([sign]) => sign === "=")?.[1].split("|").map((word) => word.trim());
      boxes.forEach((box, k) => { box.checked = !named || named.includes(all[k]); });
    },
  };
}

// A histogram with a slider at either end; an end that is where the histogram ends is no condition.
function range(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-label", `histogram of ${title(name)}; heights are square roots of numbers of cells`);
  const ends = [0, STEPS].map((value, k) => make("input", { type: "range", min: 0, max: STEPS, value, ariaLabel: `${k ? "highest" : "lowest"} ${title(name)}` }));
  const said = [make("span"), make("span")], without = make("p", { className: "soft small", hidden: true });
  const body = make("div", {}, svg, make("div", { className: "ends" }, ...ends), make("div", { className: "told" }, ...said), without);
  let scale = null, asked = [null, null];  // a value that was typed stays as it is until a slider moves

  const value = (k) => asked[k] ?? (scale ? scale.low + (ends[k].value / STEPS) * (scale.high - scale.low) : null);
  const open = (k) => asked[k] === null && +ends[k].value === [0, STEPS][k];
  const draw = () => {
    said.forEach((span, k) => { span.textContent = value(k) === null ? "" : number(value(k)); });
    [...svg.children].forEach((bar, k) => {
      const at = (k + 0.5) * (STEPS / svg.children.length);
      bar.classList.toggle("in", at >= +ends[0].value && at <= +ends[1].value);
    });
  };
  const place = () => {
    if (!scale) return;
    asked.forEach((v, k) => { if (v !== null) ends[k].value = Math.round(((v - scale.low) / (scale.high - scale.low)) * STEPS); });
    draw();
  };
  ends.forEach((end, k) => end.addEventListener("input", () => {
    asked[k] = null;
    end.value = k ? Math.max(+end.value, +ends[0].value) : Math.min(+end.value, +ends[1].value);
    draw();
    write();
  }));
  fetch(`histogram?${new URLSearchParams({ of: name })}`).then((answer) => answer.json()).then((found) => {
    scale = found;
    const most = Math.max(1, ...found.bars);
    svg.setAttribute("viewBox", `0 0 ${Math.max(1, found.bars.length)} 1`);
    svg.replaceChildren(...found.bars.map((count, k) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect"), height = count ? Math.max(0.03, Math.sqrt(count / most)) : 0;
      for (const [key, v] of Object.entries({ x: k, y: 1 - height, width: 0.9, height })) bar.setAttribute(key, v);
      return bar;
    }));
    without.hidden = !found.without;
    without.textContent = `${found.without.toLocaleString("en")} cells without a number`;
    place();
  });
  return {
    body,
    text: () => [">=", "<="].map((sign, k) => (open(k) ? "" : `${name}${sign}${asked[k] ?? +value(k).toPrecision(4)}`)).filter(Boolean).join(", "),
    show(conditions) {
      const limit = (signs) => conditions.find(([sign]) => signs.includes(sign))?.[1];
      asked = [limit([">=", ">", "="]), limit(["<=", "<", "="])].map((text) => (text === undefined || !Number.isFinite(+text) ? null : +text));
      [0, STEPS].forEach((end, k) => { if (asked[k] === null) ends[k].value = end; });
      place();
    },
  };
}
