// The layer of cells: tiles whose content is drawn here from what /cells answers (see layer.py for its form).

const OUTLINES = 1;
const SIXTEENTHS = 16;
const RAMP = [[43, 98, 245], [22, 196, 224], [110, 228, 96], [250, 208, 50], [232, 62, 28]];  // all stand out on H&E

// Return the CSS colour of each code: of classes, or of places in a measurement's spread.
export function palette(info, by) {
  if (!by) return info.classes.map((c) => `rgb(${c.colour.join(",")})`);
  const ramp = Array.from({ length: 255 }, (_, i) => `rgb(${rampAt(i / 254).join(",")})`);
  return [...ramp, "rgb(150,150,150)"];
}

function rampAt(share) {
  const at = share * (RAMP.length - 1), i = Math.min(RAMP.length - 2, Math.floor(at)), f = at - i;
  return RAMP[i].map((v, c) => Math.round(v + f * (RAMP[i + 1][c] - v)));
}

// Return the parts of a request that say which cells are wanted, in which colours.
export function query(state) {
  const parts = new URLSearchParams();
  if (state.hidden.size) parts.set("hide", [...state.hidden].sort((a, b) => a - b).join(","));
  if (state.by) parts.set("by", state.by);
  if (state.where) parts.set("where", state.where);
  if (state.revision) parts.set("revision", state.revision);  // of corrections: what was drawn before them is old
  const text = parts.toString();
  return text ? `?${text}` : "";
}

// Return a tile source for OpenSeadragon: the slide's own pyramid with `deeper` levels more.
export function cellSource(info, state) {
  const more = 2 ** info.deeper, [width, height] = info.size.map((side) => side * more);
  const last = info.max_level + info.deeper, wanted = query(state), colours = palette(info, state.by);
  const style = { filled: state.filled, colours };
  return {
    width, height, tileSize: info.cell_tile, minLevel: Math.min(last, 8), maxLevel: last,
    getTileUrl: (level, x, y) => `cells/${level}/${x}_${y}${wanted}`,
    getTileHashKey: (level, x, y, url) => `${url} ${state.filled}`,
    areCells: true,
    hasTransparency: () => true,
    downloadTileStart(job) {
      const stop = new AbortController();
      job.userData.stop = stop;
      const { level, x, y } = job.tile;
      const scale = 2 ** (last - level), width_px = info.diameter / (scale / more), side = info.cell_tile;
      const size = [[width, x], [height, y]].map(([all, i]) => Math.min(side, Math.ceil(all / scale) - i * side));
      fetch(job.src, { signal: stop.signal })
        .then((answer) => (answer.ok ? answer.arrayBuffer() : Promise.reject(new Error(`${answer.status}`))))
        .then((data) => job.finish(draw(data, size, { ...style, line: Math.min(2.2, Math.max(0.9, width_px / 12)) }), null, "context2d"))
        .catch((error) => job.fail(`cells: ${error.message}`));
    },
    downloadTileAbort: (job) => job.userData.stop?.abort(),
  };
}

function draw(data, [width, height], style) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, width);
  canvas.height = Math.max(1, height);
  const ctx = canvas.getContext("2d");
  const [kind, count] = new Uint32Array(data, 0, 2);
  if (!count) return ctx;
  const codes = new Uint8Array(data, 8, count);
  const order = byCode(codes);
  ctx.scale(1 / SIXTEENTHS, 1 / SIXTEENTHS);
  if (kind === OUTLINES) drawOutlines(ctx, data, codes, order, style);
  else drawDots(ctx, data, codes, order, style);
  return ctx;
}

const padded = (bytes) => bytes + (-bytes & 3);

// Return the rows of each code, so that cells of one colour are one path.
function byCode(codes) {
  const rows = new Map();
  codes.forEach((code, row) => {
    if (rows.has(code)) rows.get(code).push(row);
    else rows.set(code, [row]);
  });
  return rows;
}

function drawOutlines(ctx, data, codes, order, style) {
  const count = codes.length;
  let at = 8 + padded(count);
  const lengths = new Uint16Array(data, at, count);
  at += padded(2 * count);
  const xy = new Int16Array(data, at), starts = new Uint32Array(count + 1);
  for (let i = 0; i < count; i++) starts[i + 1] = starts[i] + 2 * lengths[i];
  ctx.lineWidth = style.line * SIXTEENTHS;
  ctx.lineJoin = "round";
  for (const [code, rows] of order) {
    ctx.beginPath();
    for (const row of rows) {
      const end = starts[row + 1];
      let i = starts[row];
      if (end - i < 4) continue;
      ctx.moveTo(xy[i], xy[i + 1]);
      for (i += 2; i < end; i += 2) ctx.lineTo(xy[i], xy[i + 1]);
      ctx.closePath();
    }
    ctx.strokeStyle = ctx.fillStyle = style.colours[code] ?? "rgb(150,150,150)";
    if (style.filled) {
      ctx.globalAlpha = 0.45;
      ctx.fill();
      ctx.globalAlpha = 1;
    }
    ctx.stroke();
  }
}

function drawDots(ctx, data, codes, order, style) {
  const count = codes.length, many = new Uint8Array(data, 8 + padded(count), count);
  const xy = new Int16Array(data, 8 + 2 * padded(count)), small = many.some((n) => n > 1);
  const side = (small ? 2 : 2.6) * SIXTEENTHS;
  for (const [code, rows] of order) {
    ctx.fillStyle = style.colours[code] ?? "rgb(150,150,150)";
    for (const row of rows) {
      ctx.globalAlpha = small ? Math.min(0.9, 0.2 + 0.1 * many[row]) : 0.9;
      ctx.fillRect(xy[2 * row] - side / 2, xy[2 * row + 1] - side / 2, side, side);
    }
  }
  ctx.globalAlpha = 1;
}
