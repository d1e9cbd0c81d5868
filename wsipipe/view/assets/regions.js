// Regions that were drawn: their list in the panel, their numbers, their outlines over the slide.

import { $, make, number } from "./panel.js";

let regions = [];

export function showRegions(told, view) {
  regions = told.regions;
  $("regions").hidden = false;
  $("regions-told").textContent = regions.length
    ? `Kept in ${told.regions_file}, which --regions of wsipipe summarise, report and score takes, and QuPath imports.`
    : "None yet: press the pencil, then draw region.";
  const open = new Map([...$("region-rows").children].map((row) => [row.dataset.id, row.querySelector("table")]));
  $("region-rows").replaceChildren(...regions.map((region) => row(region, view)));
  for (const element of $("region-rows").children) if (open.get(element.dataset.id)) numbers(element);
}

function row(region, { send, goTo }) {
  const name = make("input", { value: region.name, maxLength: 60, ariaLabel: "name of the region" });
  const kind = make("input", { value: region.kind, maxLength: 60, placeholder: "class", ariaLabel: "class of the region" });
  kind.setAttribute("list", "kinds-known");
  const change = () => send({ do: "rename", id: region.id, name: name.value, kind: kind.value });
  name.addEventListener("change", change);
  kind.addEventListener("change", change);
  const look = make("button", { type: "button", textContent: "go there", onclick: () => go(region, goTo) });
  const count = make("button", { type: "button", textContent: "numbers", onclick: () => numbers(element) });
  const away = make("button", { type: "button", textContent: "remove", onclick: () => send({ do: "drop", id: region.id }) });
  const element = make("div", { className: "region" }, make("div", {}, name, kind), make("div", {}, look, count, away));
  element.dataset.id = region.id;
  return element;
}

function go(region, goTo) {
  const points = region.rings.flat(), [xs, ys] = [0, 1].map((k) => points.map((p) => p[k]));
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  goTo((x0 + x1) / 2, (y0 + y1) / 2, Math.max((x1 - x0) / innerWidth, (y1 - y0) / innerHeight) * 1.4);
}

const percent = (share) => (share == null ? "–" : `${number(100 * share)} %`);
const between = (told, name, form) => (told[`${name}_low`] == null ? "" : ` (${form(told[`${name}_low`])} to ${form(told[`${name}_high`])})`);

// Show the numbers of a region, as `wsipipe summarise` tells them.
async function numbers(element) {
  const told = await (await fetch(`region?${new URLSearchParams({ id: element.dataset.id })}`)).json();
  const rows = [["area", `${number(told.area_mm2)} mm²`], ["cells", told.cells.toLocaleString("en")],
    ["per mm²", told.cells_per_mm2 == null ? "–" : number(told.cells_per_mm2) + between(told, "cells_per_mm2", number)]];
  for (const name of Object.keys(told)) {
    const type = name.match(/^(.+)_share$/)?.[1];
    if (type) rows.push([type.replaceAll("_", " "), `${told[`${type}_cells`]?.toLocaleString("en") ?? ""} · ${percent(told[name])}${between(told, name, percent)}`]);
    if (/(^|_)h_score$/.test(name) && told[name] != null) rows.push([name.replaceAll("_", " "), number(told[name])]);
  }
  const table = make("table", {}, make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((textContent) => make("td", { textContent }))))));
  const note = make("p", { className: "soft small", textContent: told.intervals.startsWith("none") ? `Intervals: ${told.intervals}.` : `In brackets: ${told.intervals}.` });
  element.querySelectorAll("table, p").forEach((old) => old.remove());
  element.append(table, note);
}

export function paintRegions(ctx, toScreen) {
  ctx.font = "600 13px system-ui, sans-serif";
  for (const { rings, colour, name } of regions) {
    ctx.beginPath();
    for (const ring of rings) {
      ring.forEach(([x, y], k) => { const p = toScreen(x, y); if (k) ctx.lineTo(p.x, p.y); else ctx.moveTo(p.x, p.y); });
      ctx.closePath();
    }
    for (const [width, tint] of [[4, "#221d2cc0"], [2, `rgb(${colour.join(",")})`]]) { ctx.lineWidth = width; ctx.strokeStyle = tint; ctx.stroke(); }
    const [x, y] = rings[0].reduce((top, point) => (point[1] < top[1] ? point : top)), at = toScreen(x, y), wide = ctx.measureText(name).width;
    ctx.fillStyle = "#221d2cd0";
    ctx.fillRect(at.x - wide / 2 - 6, at.y - 24, wide + 12, 20);
    ctx.fillStyle = "#fff";
    ctx.fillText(name, at.x - wide / 2, at.y - 9);
  }
}
