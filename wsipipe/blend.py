"""Overlapping tiles to one map: weighted means in whole numbers, so no order or partition changes a pixel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.tiling import TILE, TileGrid
from wsipipe.units import Box

BAND = 256
"""Rows that are summed up at a time: sums take twelve bytes a pixel where the maps take two."""

STEP = 4
"""How fast weights rise above the least, 1, per pixel."""


def window(overlap: int) -> NDArray[np.int64]:
    """Return the weight of each pixel along a tile's side, int64 (256,): a ramp over the middle half of the overlap.

    The outer quarter, where a tile knows least of what is around, has the least weight, 1; from the inner quarter on
    all pixels weigh the same.
    """
    distance, quarter = np.arange(TILE, dtype=np.int64), overlap // 4
    depth = np.minimum(distance, TILE - 1 - distance) - quarter + 1
    ramp: NDArray[np.int64] = np.clip(STEP * depth, 1, STEP * (overlap - 2 * quarter + 1))
    return ramp


def blend(
    box: Box, grid: TileGrid, tiles: Mapping[tuple[int, int], NDArray[np.uint8]], channels: int
) -> NDArray[np.uint8]:
    """Return the blended maps of *box*, uint8 (channels, h, w); pixels that no tile covers are 0.

    A pixel is the mean of the tiles that cover it, weighted by the product of their windows and rounded half up, in
    exact integer arithmetic.

    Parameters
    ----------
    box : Box
        Grid pixels.
    grid : TileGrid
    tiles : (i, j) -> uint8 (channels, 256, 256)
        The tiles at hand; tiles missing here were not selected.
    """
    x0, y0, x1, y1 = box
    out = np.empty((channels, y1 - y0, x1 - x0), np.uint8)
    order = sorted(tiles, key=lambda tile: (tile[1], tile[0]))
    for top in range(y0, y1, BAND):
        _blend_band(out[:, top - y0 : top - y0 + BAND], (x0, top), grid, [(*tile, tiles[tile]) for tile in order])
    return out


def _blend_band(
    out: NDArray[np.uint8], corner: tuple[int, int], grid: TileGrid, tiles: list[tuple[int, int, NDArray[np.uint8]]]
) -> None:
    """Write the blended maps of a few rows, whose top-left pixel is *corner*, into *out* (channels, h, w)."""
    (x0, y0), (channels, height, width) = corner, out.shape
    total, weights = np.zeros((channels, height, width), np.int32), np.zeros((height, width), np.int32)
    ramp = window(grid.overlap)
    for i, j, maps in tiles:
        left, top = grid.origin(i, j)
        if y0 - TILE < top < y0 + height:
            _add(total, weights, maps, ramp, left - x0, top - y0)
    _divide(total, weights, out)


@njit(cache=True, nogil=True)
def _add(
    total: NDArray[np.int32],
    weights: NDArray[np.int32],
    maps: NDArray[np.uint8],
    ramp: NDArray[np.int64],
    left: int,
    top: int,
) -> None:
    channels, height, width = total.shape
    for y in range(max(0, -top), min(TILE, height - top)):
        for x in range(max(0, -left), min(TILE, width - left)):
            w = np.int32(ramp[y] * ramp[x])
            weights[top + y, left + x] += w
            for k in range(channels):
                total[k, top + y, left + x] += w * np.int32(maps[k, y, x])


@njit(cache=True, nogil=True)
def _divide(total: NDArray[np.int32], weights: NDArray[np.int32], out: NDArray[np.uint8]) -> None:
    channels, height, width = total.shape
    for k in range(channels):
        for y in range(height):
            for x in range(width):
                w = weights[y, x]
                out[k, y, x] = np.uint8((total[k, y, x] + w // 2) // w) if w > 0 else np.uint8(0)
