// The viewer: the slide, the layers over it, and where the eye is. Positions are level-0 pixels ("base").

import { cellSource, query } from "./cells.js";
import { startEditing } from "./edit.js";
import { showFilters } from "./filters.js";
import { $, fillPanel, hideTip, note, number, roundLength, showClasses, showScale, showState, showTip } from "./panel.js";

const state = { cells: true, cellsOpacity: 1, filled: false, density: false, densityOpacity: 0.85, by: "", where: "", hidden: new Set(),
  stain: "", areas: true, areasOpacity: 1, hiddenAreas: new Set() };
const layers = { cells: null, density: null, stain: null, areas: null, pending: null, wanted: null };  // wanted: what is not yet shown
let info, viewer, editing = null, hovered = null, pinned = null, busy = false, next = null;

info = await (await fetch("info")).json();
const start = readLink();
state.revision = info.revision ?? 0;
viewer = OpenSeadragon({
  element: $("slide"), drawer: "canvas", showNavigationControl: false, showNavigator: true, navigatorPosition: "BOTTOM_RIGHT",
  navigatorAutoFade: false, navigatorBackground: "#f4f2f7", navigatorOpacity: 1, navigatorBorderColor: "#dcd8e4",
  navigatorDisplayRegionColor: "#0b57d0", ...navigatorSize(), animationTime: 0.4, springStiffness: 9, maxZoomPixelRatio: 8, minZoomImageRatio: 0.5,
  visibilityRatio: 0.3, imageLoaderLimit: 8, maxImageCacheCount: 600, maxTilesPerFrame: 8, gestureSettingsMouse: { clickToZoom: false },
  tileSources: {
    width: info.size[0], height: info.size[1], tileSize: info.tile, tileOverlap: 0, minLevel: Math.min(8, info.max_level),
    maxLevel: info.max_level, getTileUrl: (level, x, y) => `tiles/${level}/${x}_${y}.jpg`,
  },
});
let asked = null;  // the cell that a page around this one asks about (label.js)
globalThis.wsipipe = { viewer, state, info, layers, ask: (cell, s) => { asked = cell; goTo(cell.x, cell.y, s); drawMarks(); } };  // for the console, and for tests

viewer.navigator.world.addHandler("add-item", ({ item }) => {
  if (!item.source.areCells && !item.source.apart) return;
  item.setOpacity(0);  // and let it stay so when the layer's own opacity changes
  item.setOpacity = () => {};
});
viewer.addOnceHandler("open", () => {
  fillPanel(info, state, changed);
  showState(state);
  if (start) goTo(start.x, start.y, start.s, true);
  else if (info.bounds) viewer.viewport.fitBounds(viewportBox(info.bounds), true);
  if (state.stain) showStain();
  if (info.areas.length) showAreas();
  if (info.cells !== undefined) {
    swapCells();
    if (state.density) showDensity();
    showColours();
    showFilters(info, state, () => changed("classes"));
    if (info.editable) edit();
  }
  moved();
  if (matchMedia("(max-width: 640px)").matches) fold(true);  // a small window begins with the slide, all of it
});
viewer.addHandler("update-viewport", drawMarks);
viewer.addHandler("animation", moved);
viewer.addHandler("animation-finish", writeLink);
viewer.addHandler("resize", drawMarks);

async function edit() {
  editing = await startEditing({ info, state, viewer, toBase, toScreen, goTo, ask, redraw: drawMarks, corrected });
  globalThis.wsipipe.editing = editing;
}

// Show cells as they are after a correction: what was drawn before it is old.
function corrected(told) {
  Object.assign(info, { cells: told.cells, classes: told.classes });
  state.revision = told.revision;
  showClasses(info, state, changed);
  changed("classes");
}

function navigatorSize() {
  const [w, h] = info.size, side = 150 / Math.max(w, h);
  return { navigatorWidth: `${Math.max(40, w * side)}px`, navigatorHeight: `${Math.max(40, h * side)}px` };
}

// --- places

const source = () => viewer.world.getItemAt(0);
const toBase = (screen) => source().viewerElementToImageCoordinates(screen);
const toScreen = (x, y) => source().imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y));
const viewportBox = ([x0, y0, x1, y1]) => source().imageToViewportRectangle(x0, y0, x1 - x0, y1 - y0);
const basePerPixel = () => 1 / source().viewportToImageZoom(viewer.viewport.getZoom(true));

function goTo(x, y, s, at_once = false) {
  viewer.viewport.panTo(source().imageToViewportCoordinates(x, y), at_once);
  viewer.viewport.zoomTo(source().imageToViewportZoom(1 / s), null, at_once);
}

function centre() {
  const { x, y } = source().viewportToImageCoordinates(viewer.viewport.getCenter(true));
  return { x, y, s: basePerPixel() };
}

// The part of the address after # says where the eye is, and what is switched on.
function readLink() {
  const told = new URLSearchParams(location.hash.slice(1));
  state.cells = told.get("cells") !== "0";
  state.density = told.get("density") === "1";
  state.filled = told.get("filled") === "1";
  const stain = told.get("stain") ?? "";
  state.stain = /^\d+$/.test(stain) && +stain < info.stains.length ? stain : "";
  state.areas = told.get("areas") !== "0";
  for (const code of (told.get("hide-areas") ?? "").split(",")) if (/^\d+$/.test(code)) state.hiddenAreas.add(+code);
  if (info.measures?.includes(told.get("by"))) state.by = told.get("by");
  state.where = told.get("where") ?? "";
  for (const code of (told.get("hide") ?? "").split(",")) if (/^\d+$/.test(code)) state.hidden.add(+code);
  const [x, y, s] = ["x", "y", "s"].map((name) => parseFloat(told.get(name)));
  return [x, y, s].every(Number.isFinite) && s > 0 ? { x, y, s } : null;
}

function writeLink() {
  const { x, y, s } = centre(), told = new URLSearchParams({ x: x.toFixed(0), y: y.toFixed(0), s: s.toPrecision(4) });
  if (!state.cells) told.set("cells", "0");
  if (state.density) told.set("density", "1");
  if (state.filled) told.set("filled", "1");
  if (state.by) told.set("by", state.by);
  if (state.where) told.set("where", state.where);
  if (state.stain) told.set("stain", state.stain);
  if (!state.areas) told.set("areas", "0");
  if (state.hiddenAreas.size) told.set("hide-areas", [...state.hiddenAreas].join(","));
  if (state.hidden.size) told.set("hide", [...state.hidden].join(","));
  history.replaceState(null, "", `#${told}`);
}

addEventListener("hashchange", () => {
  const place = readLink();
  showState(state);
  showStain();
  if (place) goTo(place.x, place.y, place.s);
});

// --- layers

function changed(what) {
  if (what === "cells" || what === "classes") { swapCells(); showColours(); }
  if (what === "density" || (what === "classes" && state.density)) showDensity();
  if (what === "stain") showStain();
  if (what === "areas") showAreas();
  showCells();
  layers.density?.setOpacity(state.density ? state.densityOpacity : 0);
  layers.areas?.setOpacity(shownAreas());
  clearHover();
  writeLink();
}

// Put a new layer of cells over the old one, which goes when the new one is complete: nothing flickers.
// Layers come later than they are asked for; of several only the one asked for last is kept.
function swapCells() {
  const wanted = layers.wanted = {};
  if (layers.pending) viewer.world.removeItem(layers.pending);
  layers.pending = null;
  viewer.addTiledImage({
    tileSource: cellSource(info, state), x: 0, y: 0, width: 1, opacity: shownCells(),
    success: ({ item }) => {
      if (layers.wanted !== wanted) { viewer.world.removeItem(item); return; }
      layers.pending = item;
      if (!layers.cells || item.getFullyLoaded()) takePending();
      else item.addOnceHandler("fully-loaded-change", () => { if (layers.pending === item) takePending(); });
      showCells();
    },
  });
}

function takePending() {
  if (layers.cells) viewer.world.removeItem(layers.cells);
  layers.cells = layers.pending;
  layers.pending = layers.wanted = null;
}

const shownCells = () => (state.cells ? state.cellsOpacity : 0);

function showCells() {
  if (layers.pending && !shownCells()) takePending();  // what is not shown is not loaded either
  for (const item of [layers.cells, layers.pending]) item?.setOpacity(shownCells());
}

// The slide as one of its stains alone, over the slide itself; not loaded until it is asked for.
function showStain() {
  const old = layers.stain, wanted = state.stain;
  if (!wanted || old?.source.stain !== wanted) {
    layers.stain = null;
    if (old) viewer.world.removeItem(old);
  }
  if (!wanted || layers.stain) return;
  viewer.addTiledImage({
    tileSource: {
      width: info.size[0], height: info.size[1], tileSize: info.tile, tileOverlap: 0, minLevel: Math.min(8, info.max_level),
      maxLevel: info.max_level, getTileUrl: (level, x, y) => `stains/${wanted}/${level}/${x}_${y}.jpg`, stain: wanted, apart: true,
    },
    x: 0, y: 0, width: 1, index: 1,
    success: ({ item }) => {
      if (state.stain !== wanted || layers.stain) { viewer.world.removeItem(item); return; }
      layers.stain = item;
    },
  });
}

const shownAreas = () => (state.areas ? state.areasOpacity : 0);

// Annotations, below the cells.
function showAreas() {
  const old = layers.areas, hidden = [...state.hiddenAreas].sort((a, b) => a - b).join(",");
  viewer.addTiledImage({
    tileSource: {
      width: info.size[0], height: info.size[1], tileSize: info.area_tile, tileOverlap: 0, minLevel: Math.min(8, info.max_level),
      maxLevel: info.max_level, apart: true, hasTransparency: () => true,
      getTileUrl: (level, x, y) => `areas/${level}/${x}_${y}.png${hidden ? `?hide=${hidden}` : ""}`,
    },
    x: 0, y: 0, width: 1, opacity: shownAreas(), index: 1 + !!layers.stain + !!layers.density,
    success: ({ item }) => {
      if (old) viewer.world.removeItem(old);
      layers.areas = item;
      item.setOpacity(shownAreas());
    },
  });
}

async function showDensity() {
  $("density-key").hidden = !state.density;
  if (!state.density) return;
  const answer = await fetch(`density.png${query({ ...state, by: "" })}`);
  const [width, top] = ["x-width", "x-top"].map((name) => +answer.headers.get(name));
  const url = URL.createObjectURL(await answer.blob());
  $("density-top").textContent = `${number(top)} / mm²`;
  viewer.addSimpleImage({
    url, x: 0, y: 0, width: width / info.size[0], opacity: state.densityOpacity,
    success: ({ item }) => {
      if (layers.density) viewer.world.removeItem(layers.density);
      layers.density = item;
      viewer.world.setItemIndex(item, layers.stain ? 2 : 1);
      item.setOpacity(state.density ? state.densityOpacity : 0);
    },
  });
}

async function showColours() {
  $("by-key").hidden = !state.by;
  if (!state.by) return;
  const [low, high] = await (await fetch(`spread/${state.by}`)).json();
  $("by-low").textContent = number(low);
  $("by-high").textContent = number(high);
}

// --- the pointer

async function ask(x, y) {
  const parts = new URLSearchParams(query({ ...state, by: "" }));
  parts.set("x", x);
  parts.set("y", y);
  return (await fetch(`cell?${parts}`)).json();
}

// Ask for the cell under the pointer; while an answer is awaited, only the latest position is kept.
async function hover(screen) {
  if (busy) { next = screen; return; }
  busy = true;
  const { x, y } = toBase(screen);
  try {
    hovered = state.cells && info.cells !== undefined ? await ask(x, y) : null;
  } finally {
    busy = false;
  }
  if (!pinned) {
    if (hovered) showTip(hovered, info, screen, false);
    else hideTip();
    drawMarks();
  }
  if (next) { const later = next; next = null; hover(later); }
}

function clearHover() {
  hovered = pinned = next = null;
  hideTip();
  drawMarks();
}

$("slide").addEventListener("pointermove", (event) => {
  const at = new OpenSeadragon.Point(event.clientX, event.clientY), { x, y } = toBase(at);
  $("place").hidden = false;
  $("place").textContent = `x ${Math.floor(x).toLocaleString("en")}, y ${Math.floor(y).toLocaleString("en")} px`;
  if (!event.buttons) hover(at);
});
$("slide").addEventListener("pointerleave", () => { if (!pinned) clearHover(); });
viewer.addHandler("canvas-click", async (event) => {
  if (!event.quick || info.cells === undefined || editing?.click(event)) return;
  const { x, y } = toBase(event.position), cell = state.cells ? await ask(x, y) : null;
  pinned = cell;
  if (cell) showTip(cell, info, event.position, true);
  else hideTip();
  drawMarks();
});

// --- what is drawn over everything: the cell that is pointed at, and what could not be read

function drawMarks() {
  const canvas = $("marks"), ratio = devicePixelRatio;
  if (canvas.width !== Math.round(innerWidth * ratio) || canvas.height !== Math.round(innerHeight * ratio)) {
    canvas.width = Math.round(innerWidth * ratio);
    canvas.height = Math.round(innerHeight * ratio);
  }
  paintMarks(canvas.getContext("2d"), ratio);
}

function paintMarks(ctx, ratio) {
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, innerWidth, innerHeight);
  if (!source()) return;
  ctx.strokeStyle = "#d0342c";
  ctx.fillStyle = "#d0342c33";
  for (const [x0, y0, x1, y1] of info.bad ?? []) {
    const a = toScreen(x0, y0), b = toScreen(x1, y1);
    ctx.fillRect(a.x, a.y, b.x - a.x, b.y - a.y);
    ctx.strokeRect(a.x, a.y, b.x - a.x, b.y - a.y);
  }
  editing?.paint(ctx);
  paintOutline(ctx, asked, "#ffffff00");
  paintOutline(ctx, pinned ?? hovered, "#ffffff40");
}

function paintOutline(ctx, cell, fill) {
  if (!cell) return;
  ctx.beginPath();
  for (const [x, y] of cell.outline) { const p = toScreen(x, y); ctx.lineTo(p.x, p.y); }
  ctx.closePath();
  ctx.fillStyle = fill;
  ctx.fill();
  for (const [width, colour] of [[5, "#221d2c"], [2.5, "#ffe45c"]]) { ctx.lineWidth = width; ctx.strokeStyle = colour; ctx.stroke(); }
}

function moved() {
  if (info.mpp) showScale(basePerPixel() * info.mpp[0]);
  if (hovered && !pinned) { hovered = null; hideTip(); }
}

// --- picture, link, keys

async function takePicture() {
  const shown = viewer.drawer.canvas, canvas = document.createElement("canvas"), ratio = shown.width / innerWidth;
  canvas.width = shown.width;
  canvas.height = shown.height;
  const ctx = canvas.getContext("2d");
  ctx.fillStyle = "#fff";
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.drawImage(shown, 0, 0);
  ctx.drawImage($("marks"), 0, 0, canvas.width, canvas.height);
  ctx.scale(ratio, ratio);
  paintScale(ctx);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png")), { x, y } = centre();
  const save = document.createElement("a");
  save.href = URL.createObjectURL(blob);
  save.download = `${info.name.replace(/\.[^.]+$/, "")}_x${x.toFixed(0)}_y${y.toFixed(0)}.png`;
  save.click();
  setTimeout(() => URL.revokeObjectURL(save.href), 10_000);
  note(`saved ${save.download}`);
}

function paintScale(ctx) {
  if (!info.mpp) return;
  const um = basePerPixel() * info.mpp[0], { told, microns } = roundLength(160 * um), length = microns / um;
  ctx.font = "600 15px system-ui, sans-serif";
  const width = Math.max(length, ctx.measureText(told).width) + 24, y = innerHeight - 14;
  ctx.fillStyle = "#ffffffe6";
  ctx.fillRect(14, y - 42, width, 42);
  ctx.fillStyle = "#000";
  ctx.fillText(told, 26, y - 20);
  ctx.fillRect(26, y - 12, length, 4);
}

async function copyLink() {
  writeLink();
  try {
    await navigator.clipboard.writeText(location.href);
    note("link copied");
  } catch {
    note("the address bar holds the link");
  }
}

function fold(hide = !$("panel").hidden) {
  $("panel").hidden = hide;
  $("fold").setAttribute("aria-expanded", String(!hide));
}

function nextStain() {
  const next = state.stain === "" ? 0 : +state.stain + 1;
  state.stain = next < info.stains.length ? String(next) : "";
  showState(state);
  changed("stain");
}

const acts = {
  closer: () => viewer.viewport.zoomBy(2), farther: () => viewer.viewport.zoomBy(0.5), home: () => viewer.viewport.goHome(),
  shot: takePicture, link: copyLink, fold: () => fold(),
};
for (const [id, act] of Object.entries(acts)) $(id).addEventListener("click", act);
const keys = { p: acts.shot, l: acts.link, h: acts.fold, 0: acts.home, "+": acts.closer, "-": acts.farther,
  a: () => $("areas-on").click(), s: nextStain, c: () => $("cells-on").click(), d: () => $("density-on").click(), f: () => $("filled").click(), Escape: clearHover, e: () => editing?.toggle() };
addEventListener("keydown", (event) => {
  if (editing?.key(event)) { event.preventDefault(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("select, input:not([type=checkbox], [type=range])")) return;
  if (keys[event.key] && (info.cells !== undefined || !"cdf".includes(event.key))) keys[event.key]();
});
