"""Speed of cells and outlines: ``python -m tests.benchmarks.bench_cells [--side 2048] [--repeats 5]``.

Maps as a network makes them: 5,000 nuclei/mm² at 0.5 µm/px, soft edges, cores in a marker map. Printed: megapixels a
second of one core (CPU time) for find_cells, for trace, for both, and how that compares with scikit-image's watershed
alone, without polygons, on the same maps in the same process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.cells.instances import CellRules, Cells, find_cells
from wsipipe.cells.polygons import expand, expand_px, trace
from wsipipe.geometry import Grid

RULES = CellRules(0.5, 0.5, 30.0, 8, 64)
DENSITY_MM2, MPP = 5000, 0.5


def nuclei_maps(side: int, density_mm2: float = DENSITY_MM2, seed: int = 0) -> NDArray[np.uint8]:
    """Return foreground and marker (2, side, side) of random ellipses on a jittered lattice; some touch."""
    rng = np.random.default_rng(seed)
    step = 1000 / (MPP * density_mm2**0.5)
    foreground, marker = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
    for x, y in np.mgrid[0.5 : side / step, 0.5 : side / step].reshape(2, -1).T:
        centre = (x + rng.uniform(-0.3, 0.3)) * step, (y + rng.uniform(-0.3, 0.3)) * step
        axes, angle = rng.uniform(5, 11, 2), rng.uniform(0, 180)
        for image, part in ((foreground, 1.0), (marker, 0.6)):
            cv2.ellipse(image, (centre, tuple(2 * part * axes), angle), 1.0, -1)
    maps = [cv2.GaussianBlur(image, (0, 0), 1.0) * 255 for image in (foreground, marker)]
    return np.clip(np.round(maps), 0, 255).astype(np.uint8)


def best_of(repeats: int, run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the least CPU seconds of *repeats* runs (wall time says little on a busy machine), and the last result."""
    seconds, result = [], None
    for _ in range(repeats):
        start = time.thread_time()
        result = run()
        seconds.append(time.thread_time() - start)
    return min(seconds), result


def watershed(maps: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return scikit-image's watershed of the same maps."""
    from skimage.segmentation import watershed as skimage_watershed

    mask = maps[0] >= RULES.level
    markers = cv2.connectedComponents(((maps[1] >= RULES.level) & mask).view(np.uint8), connectivity=4)[1]
    labels: NDArray[np.int32] = skimage_watershed(-maps[0].astype(np.int16), markers, mask=mask)
    return labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048, help="pixels")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    side, repeats = args.side, args.repeats
    cv2.setNumThreads(1)
    maps, names, box = nuclei_maps(side), ("foreground", "marker"), (0, 0, side, side)
    grid, pixels = Grid((side, side), (1.0, 1.0), (MPP, MPP), 0, (1.0, 1.0)), side * side / 1e6

    def cells_of(maps: NDArray[np.uint8], names: tuple[str, ...], neighbours: bool = False) -> Cells:
        return find_cells(maps, names, box, box, (side, side), RULES, neighbours=neighbours)

    small = nuclei_maps(256)
    warm = find_cells(small, names, (0, 0, 256, 256), (0, 0, 256, 256), (256, 256), RULES)
    trace(warm, small[0], 0.5, grid)
    find, cells = best_of(repeats, lambda: cells_of(maps, names))
    shape, other = best_of(repeats, lambda: cells_of(maps[:1], names[:1]))
    outline, polygons = best_of(repeats, lambda: trace(cells, maps[0], 0.5, grid))
    near = cells_of(maps, names, neighbours=True)
    expand(near, polygons, 1.0, grid)
    wide, _ = best_of(1, lambda: expand(near, polygons, 5.0, grid))
    shed, labels = best_of(max(1, repeats // 2), lambda: watershed(maps))
    print(f"{side} px, {len(cells)} cells ({len(cells) / (side * MPP / 1000) ** 2:.0f}/mm²), best of {repeats}")
    rows = (
        ("find_cells", find),
        ("find_cells, no marker map", shape),
        ("trace", outline),
        ("find_cells + trace", find + outline),
        (f"expand by {expand_px(5.0, grid)} px", wide),
        ("skimage watershed", shed),
    )
    for name, seconds in rows:
        print(f"{name:28s} {1e3 * seconds / pixels:8.1f} ms/MP {pixels / seconds:8.1f} MP/s")
    print(f"find_cells + trace is {shed / (find + outline):.1f}x as fast as skimage.segmentation.watershed alone")
    print(f"cells: {len(cells)} with markers, {len(other)} without, {labels.max()} by watershed")


if __name__ == "__main__":
    main()
