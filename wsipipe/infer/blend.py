"""Overlapping tiles to one map: weighted means in whole numbers, so no order or partition changes a pixel."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.raster.tiling import TILE, TileGrid
from wsipipe.units import Box

STEP = 4
"""How fast weights rise above the least, 1, per pixel."""


def window(overlap: int) -> NDArray[np.int64]:
    """Return the weight of each pixel along a tile's side, int64 (256,): a ramp over the middle quarter of the overlap.

    The outer three eighths, where a tile knows least of what is around, have the least weight, 1; from the inner three
    eighths on all pixels weigh the same.
    """
    distance, outer = np.arange(TILE, dtype=np.int64), 3 * overlap // 8
    depth = np.minimum(distance, TILE - 1 - distance) - outer + 1
    ramp: NDArray[np.int64] = np.clip(STEP * depth, 1, STEP * (overlap - 2 * outer + 1))
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
    out = np.zeros((channels, y1 - y0, x1 - x0), np.uint8)
    ramp = window(grid.overlap)
    for (top, bottom, rows), (left, right, columns) in itertools.product(
        _spans(y0, y1, grid.stride), _spans(x0, x1, grid.stride)
    ):
        found = [(*grid.origin(i, j), tiles[i, j]) for j in rows for i in columns if (i, j) in tiles]
        part = out[:, top - y0 : bottom - y0, left - x0 : right - x0]
        if len(found) == 1:  # the mean of one tile is that tile
            x, y, maps = found[0]
            part[:] = maps[:, top - y : bottom - y, left - x : right - x]
        elif found:
            total, weights = np.zeros(part.shape, np.int32), np.zeros(part.shape[1:], np.int32)
            for x, y, maps in found:
                _add(total, weights, maps, ramp, x - left, y - top)
            part[:] = _divided(total, weights)
    return out


def _spans(start: int, stop: int, stride: int) -> Iterator[tuple[int, int, range]]:
    """Yield the parts of ``[start, stop)`` that lie in the same tiles throughout, and which tiles these are."""
    near = range((start - TILE) // stride, stop // stride + 1)
    inner = {edge for k in near for edge in (k * stride, k * stride + TILE) if start < edge < stop}
    for a, b in itertools.pairwise(sorted({start, stop, *inner})):
        yield a, b, range((a - TILE) // stride + 1, a // stride + 1)


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
def _divided(total: NDArray[np.int32], weights: NDArray[np.int32]) -> Any:
    channels, height, width = total.shape
    out = np.empty(total.shape, np.uint8)
    for k in range(channels):
        for y in range(height):
            for x in range(width):
                w = weights[y, x]
                out[k, y, x] = np.uint8((total[k, y, x] + w // 2) // w)
    return out
