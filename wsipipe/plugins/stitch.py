"""Objects of overlapping tiles to the cells of a block: none cut, none twice, the same however the work is cut up.

Another network looks at whole tiles and says which pixels belong to which object. A tile is believed about the objects
whose centroid lies in its core, or up to ``BAND_UM`` beyond, where its neighbour may put the centroid on the other side
of the border. Of two objects of different tiles that share most of the smaller one, the one that lies deeper in its
tile's core stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from wsipipe.cells.instances import Cells, cells_of
from wsipipe.cells.kernels import regions
from wsipipe.cells.kernels.objects import keep_largest
from wsipipe.cells.rules import CellRules
from wsipipe.errors import SettingsError
from wsipipe.geometry import intersect, is_empty
from wsipipe.plugins.maps import OBJECT, Image
from wsipipe.plugins.protocol import Looks
from wsipipe.raster.tiling import TileGrid
from wsipipe.units import Box

BAND_UM = 2.0
"""How far beyond its core a tile is asked about objects: further than two tiles disagree about a centroid."""
STEP = 32
"""Tiles lie a multiple of so many px apart: networks pool, and must see the same pixels pooled together."""
ROUNDS = 2
"""An object that only a dropped one beats stays; this is looked at so many times."""

Labels = NDArray[np.int32]
Tiles = Mapping[tuple[int, int], Image]


def tiling(looks: Looks, rules: CellRules, mpp: float) -> tuple[int, int]:
    """Return side and overlap of the tiles that a plug-in *looks* at, in grid px.

    A core ends so far inside its tile that every object whose centroid lies in it, or in the band around it, is whole,
    and that the network sees its context around the object. Tiles lie a multiple of 32 px apart, as pooling does.

    Raises
    ------
    SettingsError
        When that leaves less than half of a tile.
    """
    overlap = 2 * math.ceil(rules.max_diameter_px + looks.context + BAND_UM / mpp)
    stride = (looks.tile - overlap) // STEP * STEP
    if 2 * stride < looks.tile:
        raise SettingsError(
            f"tiles of {looks.tile} px are too small for objects of {rules.max_diameter_px} px that depend on "
            f"{looks.context} px around them; expected tile = {-(-overlap // STEP) * 2 * STEP} or more in the TOML "
            "file beside the weights, or a smaller max_diameter_um or context"
        )
    return looks.tile, looks.tile - stride


def halo(rules: CellRules, expand_px: int = 0) -> int:
    """Return how many grid px a window must reach beyond its core for an exact result.

    With D = max_diameter_px: an object's pixels lie within D of its centroid. Which of them are its own depends on the
    objects that overlap it, within D more; whether these stay, on those that overlap them, ``ROUNDS`` times D further.
    Growing by e: the competitors lie within 2 e, and are right as whole cells within D more.
    """
    d = rules.max_diameter_px
    return (2 + ROUNDS) * d + (2 * expand_px + d if expand_px else 0)


@dataclass(frozen=True, eq=False)
class Found:
    """The objects that one tile is believed about.

    Attributes
    ----------
    numbers : int32 (n,)
        Of the objects, in its maps.
    depth : float64 (n,)
        How far outside the tile's core the centroid lies; negative inside, in grid px.
    labels : int32 (side, side)
        The objects 1..n.
    cut : bool (n,)
        Whether the object was larger than a cell can be.
    """

    box: Box
    depth: NDArray[np.float64]
    labels: Labels
    cut: NDArray[np.bool_]


def stitch(
    window: Box,
    grid: TileGrid,
    tiles: Tiles,
    names: Sequence[str],
    core: Box,
    rules: CellRules,
    band_px: float,
    *,
    neighbours: bool = False,
) -> tuple[Cells, Image]:
    """Return the cells whose centroid lies in *core*, and 255 where they and others lie, uint8 (h, w).

    Parameters
    ----------
    window, core : Box
        Grid px, inside the slide; the window reaches :func:`halo` beyond the core.
    tiles : (i, j) -> uint8 (K, side, side)
        Maps of the tiles over the window, see :mod:`wsipipe.plugins.maps`; tiles missing here hold no object.
    names : sequence of str
    rules : CellRules
        Of them: the largest diameter, the smallest area, the least probabilities.
    band_px : float
        Beyond the cores.
    neighbours : bool
        Keep the cells of other cores in ``Cells.neighbours``.
    """
    cores = grid.cores()
    keys = sorted(tiles)
    found = [_believed(tiles[i, j], grid.box(i, j), cores[j, i], grid, rules, band_px) for i, j in keys]
    starts = np.cumsum([0, *(len(one.depth) for one in found)])
    ranks = _ranks(found)
    kept = _kept(keys, found, starts, ranks)
    labels, maps = _painted(window, keys, found, starts, ranks, kept, tiles, len(names))
    flagged = np.zeros(int(starts[-1]) + 1, np.bool_)
    flagged[1 + ranks] = np.concatenate([np.zeros(0, np.bool_), *(one.cut for one in found)])
    _without_remains(labels, found, ranks)
    cells = cells_of(labels, flagged, maps, names, window, core, rules, neighbours)
    return cells, (labels[1:-1, 1:-1] > 0).astype(np.uint8) * 255


def _believed(maps: Image, box: Box, core: NDArray[np.int64], grid: TileGrid, rules: CellRules, band: float) -> Found:
    """Return the objects of a tile whose centroid lies in its core or the band around it, no larger than a cell."""
    labels = maps[0] + maps[1].astype(np.int32) * 256
    beyond_x, beyond_y = max(0, grid.size[0] - box[0]), max(0, grid.size[1] - box[1])
    labels[:, beyond_x:] = labels[beyond_y:] = 0  # what is mirrored there
    count = int(labels.max(initial=0))
    cut = _clipped(labels, count, rules.max_diameter_px)
    sums, _, _ = regions.accumulate(np.pad(labels, 1), maps, np.zeros(0, np.int64), box[0], box[1], count)
    there = np.flatnonzero(sums[:, 0])
    x, y = (sums[there, axis] / sums[there, 0] + 0.5 for axis in (1, 2))
    depth = np.max([core[0] - x, x - core[2], core[1] - y, y - core[3]], axis=0) if len(there) else np.zeros(0)
    near = depth <= band
    numbers = np.zeros(count + 1, np.int32)
    numbers[there[near] + 1] = np.arange(1, near.sum() + 1)
    return Found(box, depth[near], numbers[labels], cut[there[near]])


def _clipped(labels: Labels, count: int, limit: int) -> NDArray[np.bool_]:
    """Cut objects longer than *limit* px down to a square around their centroid, in place; return which they were."""
    padded = np.pad(labels, 1)
    sums, box, _ = regions.accumulate(
        padded, np.zeros((0, *labels.shape), np.uint8), np.zeros(0, np.int64), 0, 0, count
    )
    large = (box[:, 2:] - box[:, :2]).max(axis=1, initial=0) > limit
    for k in np.flatnonzero(large):
        x, y = (int(sums[k, axis] // sums[k, 0]) - limit // 2 for axis in (1, 2))
        rows, columns = np.nonzero(labels == k + 1)
        out = (columns < x) | (columns >= x + limit) | (rows < y) | (rows >= y + limit)
        labels[rows[out], columns[out]] = 0
    if large.any():
        padded[1:-1, 1:-1] = labels
        keep_largest(padded, count)
        labels[:] = padded[1:-1, 1:-1]
    return np.asarray(large)


def _ranks(found: Sequence[Found]) -> NDArray[np.int64]:
    """Return the place of every object in the order of preference: deepest first, then by tile."""
    depth = np.concatenate([np.zeros(0), *(one.depth for one in found)])
    ranks = np.empty(len(depth), np.int64)
    ranks[np.argsort(depth, kind="stable")] = np.arange(len(depth))
    return ranks


def _kept(
    keys: Sequence[tuple[int, int]], found: Sequence[Found], starts: NDArray[np.int64], ranks: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which objects stay: those that share no more than half with a better one of another tile that stays."""
    place = {key: k for k, key in enumerate(keys)}
    area = np.concatenate([np.zeros(0, np.int64), *(_areas(one) for one in found)])
    pairs = [np.zeros((0, 2), np.int64)]
    for (a, (i, j)), (di, dj) in product(enumerate(keys), ((1, 0), (0, 1), (1, 1), (-1, 1))):
        b = place.get((i + di, j + dj))
        if b is not None:
            same = _same(found[a], found[b], area[starts[a] :], area[starts[b] :])
            pairs.append(same + np.array([starts[a], starts[b]]))
    pair = np.concatenate(pairs)
    better = ranks[pair[:, 0]] < ranks[pair[:, 1]]
    winner, loser = np.where(better, pair.T, pair.T[::-1])
    kept = np.ones(len(ranks), np.bool_)
    for _ in range(ROUNDS):
        beaten = loser[kept[winner]]
        kept = np.ones(len(ranks), np.bool_)
        kept[beaten] = False
    return kept


def _areas(one: Found) -> NDArray[np.int64]:
    return np.asarray(np.bincount(one.labels.ravel(), minlength=len(one.depth) + 1)[1:], np.int64)


def _same(a: Found, b: Found, area_a: NDArray[np.int64], area_b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pairs (n, 2) of objects of two tiles that share more than half of the smaller one."""
    both = intersect(a.box, b.box)
    if is_empty(both):
        return np.zeros((0, 2), np.int64)
    mine, others = (_part(one.labels, one.box, both).astype(np.int64) for one in (a, b))
    shared = (mine > 0) & (others > 0)
    base = len(b.depth) + 1
    pairs, pixels = np.unique(mine[shared] * base + others[shared], return_counts=True)
    first, second = pairs // base - 1, pairs % base - 1
    same = 2 * pixels > np.minimum(area_a[first], area_b[second])
    return np.asarray(np.stack([first, second], axis=1)[same], np.int64)


def _part(image: NDArray[np.int32], box: Box, part: Box) -> NDArray[np.int32]:
    """Return the *part* of an image of *box*."""
    return image[part[1] - box[1] : part[3] - box[1], part[0] - box[0] : part[2] - box[0]]


def _painted(
    window: Box,
    keys: Sequence[tuple[int, int]],
    found: Sequence[Found],
    starts: NDArray[np.int64],
    ranks: NDArray[np.int64],
    kept: NDArray[np.bool_],
    tiles: Tiles,
    channels: int,
) -> tuple[Labels, Image]:
    """Return the kept objects of the window (padded), numbered from 1 by rank, and their maps; the better on top."""
    height, width, none = window[3] - window[1], window[2] - window[0], len(ranks) + 1
    best = np.full((height, width), none, np.int32)
    maps = np.zeros((channels, height, width), np.uint8)
    for k, (key, one) in enumerate(zip(keys, found, strict=True)):
        both = intersect(one.box, window)
        if is_empty(both):
            continue
        own = slice(int(starts[k]), int(starts[k + 1]))
        numbers = np.array([none, *np.where(kept[own], ranks[own] + 1, none)], np.int32)
        mine = numbers[_part(one.labels, one.box, both)]
        there = _part(best, window, both)
        better = mine < there
        there[better] = mine[better]
        for channel in range(len(OBJECT) - 1, channels):
            _part(maps[channel], window, both)[better] = _part(tiles[key][channel], one.box, both)[better]
    return np.pad(np.where(best == none, 0, best), 1), maps


def _without_remains(labels: Labels, found: Sequence[Found], ranks: NDArray[np.int64]) -> None:
    """Clear what is left of objects of which better ones cover more than half; the rest are made whole (padded)."""
    count = len(ranks)
    area = np.zeros(count + 1, np.int64)
    area[1 + ranks] = np.concatenate([np.zeros(0, np.int64), *(_areas(one) for one in found)])
    keep_largest(labels, count)
    left = np.bincount(labels.ravel(), minlength=count + 1)
    gone = 2 * left < area
    labels[gone[labels]] = 0
    regions.fill(labels, regions.boxes(labels, count))
