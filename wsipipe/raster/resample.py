"""From the pixels of a level to those of the grid: area means and linear interpolation, registered to sub-pixel.

The weights of a pixel follow from its global index, and are summed in one order: no pixel depends on the box it is in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.raster.chunks import Pixels
from wsipipe.units import Box, Pair


def whole_factor(scale: float, side: int) -> int:
    """Return *scale* as an integer when it drifts from it by under 0.01 level px over *side* grid px, else 0."""
    factor = round(scale)
    return factor if factor >= 1 and abs(scale - factor) * side < 0.01 else 0


def resample(
    read: Callable[[Box], Pixels], box: Box, scale: Pair, size: tuple[int, int], level_size: tuple[int, int]
) -> Pixels:
    """Return the grid pixels of *box*, uint8 (h, w, 3), from level pixels that *read* gives for a level box.

    Along an axis with *scale* >= 1 a pixel is the mean over the area it covers; along one with *scale* < 1 it is
    interpolated linearly. Both are registered: grid pixel i covers level pixels ``[i * scale, (i + 1) * scale)``, and
    what sticks out of the level is left out of the mean. A whole *scale* gives the exact mean, rounded half up.
    """
    (x0, y0, x1, y1), (sx, sy) = box, (whole_factor(s, side) or s for s, side in zip(scale, size, strict=True))
    left, weight_x = _taps(x0, x1, sx, level_size[0])
    top, weight_y = _taps(y0, y1, sy, level_size[1])
    origin = int(left.min()), int(top.min())
    pixels = read((*origin, _end(left, weight_x), _end(top, weight_y)))
    return _weighted_mean(np.ascontiguousarray(pixels), left - origin[0], weight_x, top - origin[1], weight_y)


def _taps(start: int, stop: int, scale: float, level_side: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the first level pixel that each grid pixel uses, int64 (n,), and its weights, float32 (n, taps)."""
    index = np.arange(start, stop, dtype=np.float64)
    if scale < 1:
        position = np.clip((index + 0.5) * scale - 0.5, 0, level_side - 1)
        first = np.minimum(position.astype(np.int64), max(0, level_side - 2))
        share = position - first
        return first, np.stack([1 - share, share], axis=1).astype(np.float32)[:, : min(2, level_side)]
    low, high = index * scale, np.minimum((index + 1) * scale, level_side)
    first = np.minimum(np.floor(low), level_side - 1).astype(np.int64)
    edges = first[:, None] + np.arange(int(np.ceil(scale)) + 1)
    cover = np.clip(np.minimum(edges + 1, high[:, None]) - np.maximum(edges, low[:, None]), 0, None)
    cover[cover < 1e-6] = 0
    cover[cover.sum(1) == 0, 0] = 1  # a last pixel that lies wholly outside, by rounding, repeats the edge
    return first, cover.astype(np.float32)


def _end(first: NDArray[np.int64], weights: NDArray[np.float32]) -> int:
    """Return the end of the level pixels that have a weight above 0."""
    last = weights.shape[1] - np.argmax(weights[:, ::-1] > 0, axis=1)
    return int((first + last).max())


@njit(cache=True, nogil=True)
def _weighted_mean(
    pixels: Pixels,
    left: NDArray[np.int64],
    weight_x: NDArray[np.float32],
    top: NDArray[np.int64],
    weight_y: NDArray[np.float32],
) -> Pixels:
    """Return the separable weighted mean of *pixels* (h, w, 3): first down the rows, then along them, in float32."""
    width = pixels.shape[1] * 3
    flat = pixels.reshape(pixels.shape[0], width)
    out = np.empty((top.size, left.size, 3), np.uint8)
    line = np.empty(width, np.float32)
    zero, half = np.float32(0), np.float32(0.5)
    for y in range(top.size):
        line[:] = zero
        total_y = zero
        for k in range(weight_y.shape[1]):
            weight = weight_y[y, k]
            if weight > 0:
                row = flat[top[y] + k]
                total_y += weight
                for u in range(width):
                    line[u] += weight * np.float32(row[u])
        for x in range(left.size):
            red, green, blue, total = zero, zero, zero, zero
            for k in range(weight_x.shape[1]):
                weight = weight_x[x, k]
                if weight > 0:
                    u = (left[x] + k) * 3
                    total += weight
                    red += weight * line[u]
                    green += weight * line[u + 1]
                    blue += weight * line[u + 2]
            total *= total_y
            out[y, x, 0] = np.uint8(min(red / total + half, np.float32(255)))
            out[y, x, 1] = np.uint8(min(green / total + half, np.float32(255)))
            out[y, x, 2] = np.uint8(min(blue / total + half, np.float32(255)))
    return out
