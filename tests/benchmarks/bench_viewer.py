"""Frames per second of the viewer in Chromium while it pans over a slide with many cells.

python -m tests.benchmarks.bench_viewer [CELLS] [--seconds S]     (default: 5000000 cells as of bench_formats; 5 s)

One JSON line for each zoom: base pixels per screen pixel, frames per second, the longest and the 95th percentile of the
time between frames, and how much of the last view is drawn when the pan ends. The slide is drawn when it is read; the
window is 1280 × 800. Needs Playwright and Chromium, as tests/view/test_browser.py does.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.bench_formats import ABOUT, MODULE, PITCH, SCALE
from tests.view.browsing import CHROMIUM, FLAGS, TOKEN, served
from wsipipe.slide.protocol import MppSource, SlideInfo
from wsipipe.slide.reader import pyramid

WINDOW = {"width": 1280, "height": 800}
ZOOMS = ("whole", 32.0, 8.0, 2.0, 0.5)
"""Base pixels per screen pixel; the whole slide first."""
PAN = """async ([seconds, step]) => {
  const { viewer } = wsipipe, times = [];
  const zoom = viewer.viewport.getZoom(), start = performance.now();
  let last = start;
  while (last - start < 1000 * seconds) {
    const now = await new Promise(requestAnimationFrame);
    if (times.length || now > start) times.push(now - last);
    last = now;
    const turn = (now - start) / 1500;
    viewer.viewport.panBy(new OpenSeadragon.Point(step * Math.cos(turn) / zoom, step * Math.sin(turn) / zoom), true);
  }
  const items = [...Array(viewer.world.getItemCount()).keys()].map((k) => viewer.world.getItemAt(k));
  return { times: times.slice(1), loaded: items.map((item) => item.getFullyLoaded()) };
}"""


class Pattern:
    """A slide of any size that is drawn where it is read: stained texture, repeated."""

    def __init__(self, side: int) -> None:
        sizes = [(side, side)]
        while max(sizes[-1]) > 1024:
            sizes.append((-(-sizes[-1][0] // 4), -(-sizes[-1][1] // 4)))
        self.info = SlideInfo(
            path="pattern", backend="memory", levels=pyramid(sizes), mpp=(0.25, 0.25), mpp_source=MppSource.VENDOR
        )
        rng = np.random.default_rng(0)
        self._tile = np.clip(rng.normal((220, 170, 205), 12, (512, 512, 3)), 0, 255).astype(np.uint8)

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return the pattern."""
        rows, columns = np.arange(y, y + height) % 512, np.arange(x, x + width) % 512
        return self._tile[rows[:, None], columns]

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make(cells: int, folder: Path) -> tuple[Path, int]:
    """Return a master file of so many cells, and the side of its slide."""
    from wsipipe.formats.parquet import merge_parts

    side = math.ceil(math.sqrt(cells) * PITCH * SCALE) + 64
    subprocess.run([*MODULE, "--parts", str(folder), str(cells)], check=True)
    path = folder / "cells.parquet"
    merge_parts(sorted(folder.glob("*.arrow")), path, ABOUT | {"size": [side, side]})
    return path, side


def measure(page: Any, address: str, side: int, zoom: float | str, seconds: float) -> dict[str, Any]:
    """Return the frames of a pan in circles at a zoom."""
    scale = side / WINDOW["height"] if zoom == "whole" else float(zoom)
    start = time.perf_counter()
    page.goto("about:blank")
    page.goto(f"{address}#x={side / 2:.0f}&y={side / 2:.0f}&s={scale}", wait_until="commit")
    ready = "() => { const l = globalThis.wsipipe?.layers; return Boolean(l?.cells?.getFullyLoaded() && !l.wanted); }"
    while not page.evaluate(ready):
        page.wait_for_timeout(50)
    opened = time.perf_counter() - start
    told = page.evaluate(PAN, [seconds, 0.008])
    times = np.array(told["times"])
    return {
        "cells_zoom": round(scale, 2),
        "first_view_s": round(opened, 1),
        "fps": round(1000 * len(times) / times.sum(), 1),
        "p95_ms": round(float(np.percentile(times, 95)), 1),
        "longest_ms": round(float(times.max()), 1),
        "drawn_at_the_end": all(told["loaded"]),
    }


def main() -> None:
    from playwright.sync_api import sync_playwright

    from wsipipe.view.answers import Shown
    from wsipipe.view.index import CellIndex
    from wsipipe.view.server import application

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="?", type=int, default=5_000_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path, side = make(asked.cells, Path(name))
        start = time.perf_counter()
        index = CellIndex(path)
        print(json.dumps({"cells": index.cells, "open_s": round(time.perf_counter() - start, 1)}), flush=True)
        with served(application(Shown(Pattern(side), "pattern", index), TOKEN)) as address, sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_context(viewport=WINDOW).new_page()
            for zoom in ZOOMS:
                print(json.dumps(measure(page, address, side, zoom, asked.seconds)), flush=True)
            browser.close()


if __name__ == "__main__":
    main()
