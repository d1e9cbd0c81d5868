"""Areas of a slide that cannot be read: kept while a run is unfinished, and their share of what was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.artifacts import write_json
from wsipipe.raster.chunks import Raster
from wsipipe.units import Box


def covered_px(boxes: NDArray[np.int64]) -> int:
    """Return how many pixels the *boxes*, int64 (n, 4), cover together."""
    (xs, x), (ys, y) = (np.unique(boxes[:, axis::2], return_inverse=True) for axis in (0, 1))
    x, y = x.reshape(-1, 2), y.reshape(-1, 2)
    depth = np.zeros((len(ys), len(xs)), np.int64)
    for row, column, sign in ((0, 0, 1), (0, 1, -1), (1, 0, -1), (1, 1, 1)):
        np.add.at(depth, (y[:, row], x[:, column]), sign)
    covered = depth.cumsum(0).cumsum(1)[:-1, :-1] > 0
    return int(np.diff(ys) @ covered @ np.diff(xs))


def kept_bad(work: Path, raster: Raster) -> list[Box]:
    """Return the unreadable boxes met so far, and keep them in *work* for a run that goes on with this one."""
    path = work / "bad.json"
    before = {tuple(box) for box in json.loads(path.read_text("utf-8"))} if path.exists() else set()
    bad = sorted(before | set(raster.bad))
    if bad:
        write_json(path, bad)
    return bad


def within(boxes: NDArray[np.int64], met: list[Box], raster: Raster) -> tuple[list[Box], float]:
    """Return those of the areas *met* that lie in *boxes*, int64 (n, 4), and the share of their pixels."""
    areas = np.array(met, np.int64).reshape(-1, 4)
    width, height = raster.grid.size
    tiles = np.minimum(boxes, (width, height, width, height))
    inner: Any = shapely.box(*(areas + np.array([1, 1, -1, -1])).T)
    squares: Any = shapely.box(*tiles.T)
    hit = shapely.STRtree(squares).query(inner, "intersects")[0]
    bad = areas[np.unique(hit)]
    both = covered_px(np.concatenate([bad, tiles]))
    share = (covered_px(bad) + covered_px(tiles) - both) / max(1, covered_px(tiles))
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in bad.tolist()], float(share)
