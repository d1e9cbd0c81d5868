// Two results of one slide, side by side: each is a viewer of its own, and where one goes the other follows.

const sides = ["left", "right"].map((id) => document.getElementById(id));
const joined = new WeakSet();
let leader = null;  // the side that moves; what the other does meanwhile is not sent back

sides.forEach((frame, k) => {
  frame.addEventListener("load", () => join(k));  // and again when one side is loaded again
  frame.src = `${["one", "two"][k]}/${location.hash}`;
  join(k);  // "load" waits for the tiles in sight
});

// Wait until both have opened, then tie them together.
async function join(k) {
  const frame = sides[k].contentWindow;
  while (!frame.wsipipe?.viewer?.world?.getItemAt(0)) await new Promise((done) => setTimeout(done, 50));
  const { viewer } = frame.wsipipe;
  if (joined.has(viewer)) return;
  joined.add(viewer);
  for (const name of ["canvas-press", "canvas-scroll", "canvas-pinch", "canvas-double-click", "canvas-key"]) viewer.addHandler(name, () => { leader = k; });
  frame.addEventListener("pointerdown", () => { leader = k; }, true);
  frame.addEventListener("keydown", () => { leader = k; }, true);
  viewer.addHandler("viewport-change", () => follow(k));
  viewer.addHandler("animation-finish", () => { if (leader === k) history.replaceState(null, "", frame.location.hash); });
  frame.addEventListener("hashchange", () => { leader = k; }, true);
  leader ??= 0;
  follow(0);
}

// Both show the same base pixels per screen pixel about the same place.
function follow(k) {
  if (leader !== k) return;
  const [own, other] = [sides[k], sides[1 - k]].map((side) => side.contentWindow.wsipipe?.viewer);
  const [a, b] = [own, other].map((viewer) => viewer?.world.getItemAt(0));
  if (!a || !b) return;
  const centre = a.viewportToImageCoordinates(own.viewport.getCenter(true)), zoom = a.viewportToImageZoom(own.viewport.getZoom(true));
  other.viewport.zoomTo(b.imageToViewportZoom(zoom), null, true);
  other.viewport.panTo(b.imageToViewportCoordinates(centre.x, centre.y), true);  // numbers: a point is of its own window
}

globalThis.pair = { sides };  // for tests
