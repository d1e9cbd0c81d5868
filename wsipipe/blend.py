"""Overlapping tiles to one map: weighted means in whole numbers, so no order or partition changes a pixel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.tiling import TILE, TileGrid
from wsipipe.units import Box


def window(overlap: int) -> NDArray[np.int64]:
    """Return the weight of each pixel along a tile's side, int64 (256,): a ramp over the overlap, never below 1."""
    distance = np.arange(TILE, dtype=np.int64)
    ramp: NDArray[np.int64] = np.minimum(np.minimum(distance, TILE - 1 - distance) + 1, overlap + 1)
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
    total = np.zeros((channels, y1 - y0, x1 - x0), np.int32)
    weights = np.zeros((y1 - y0, x1 - x0), np.int32)
    ramp = window(grid.overlap)
    for (i, j), maps in sorted(tiles.items(), key=lambda item: (item[0][1], item[0][0])):
        left, top = grid.origin(i, j)
        _add(total, weights, maps, ramp, left - x0, top - y0)
    return _divide(total, weights)


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
def _divide(total: NDArray[np.int32], weights: NDArray[np.int32]) -> NDArray[np.uint8]:
    channels, height, width = total.shape
    out = np.zeros((channels, height, width), np.uint8)
    for k in range(channels):
        for y in range(height):
            for x in range(width):
                w = weights[y, x]
                if w > 0:
                    out[k, y, x] = np.uint8((total[k, y, x] + w // 2) // w)
    return out
