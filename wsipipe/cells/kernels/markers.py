"""Compiled loops that find where cells start: depth inside a mask, peaks, components.

Every loop is local: a pixel's result depends on pixels within the stated reach and on the order of global coordinates,
never on where the array starts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

DEPTH_UNIT = 5
"""Steps of :func:`depth` per pixel."""

Labels = NDArray[np.int32]
Mask = NDArray[np.uint8]


@njit(cache=True, nogil=True)
def depth(inside: Mask, cap: int) -> Any:
    """Return the 5-7-11 chamfer distance to the nearest pixel outside the mask, at most *cap* (uint8, 1/5 px).

    What lies beyond the array counts as unknown, not as outside. Reach: ``cap / 5`` px.
    """
    h, w = inside.shape
    out = np.empty((h, w + 4), np.int32)  # two columns of margin on either side
    out[:, :2] = cap
    out[:, w + 2 :] = cap
    for y in range(h):
        for x in range(w):
            if inside[y, x] == 0:
                out[y, x + 2] = 0
                continue
            d = min(cap, out[y, x + 1] + 5)
            if y > 0:
                d = min(d, out[y - 1, x + 2] + 5, out[y - 1, x + 1] + 7, out[y - 1, x + 3] + 7)
                d = min(d, out[y - 1, x] + 11, out[y - 1, x + 4] + 11)
            if y > 1:
                d = min(d, out[y - 2, x + 1] + 11, out[y - 2, x + 3] + 11)
            out[y, x + 2] = d
    result = np.empty((h, w), np.uint8)
    for y in range(h - 1, -1, -1):
        for x in range(w - 1, -1, -1):
            d = out[y, x + 2]
            if d > 0:
                d = min(d, out[y, x + 3] + 5)
                if y < h - 1:
                    d = min(d, out[y + 1, x + 2] + 5, out[y + 1, x + 1] + 7, out[y + 1, x + 3] + 7)
                    d = min(d, out[y + 1, x] + 11, out[y + 1, x + 4] + 11)
                if y < h - 2:
                    d = min(d, out[y + 2, x + 1] + 11, out[y + 2, x + 3] + 11)
                out[y, x + 2] = d
            result[y, x] = d
    return result


@njit(cache=True, nogil=True)
def _mix(x: int, y: int) -> np.uint64:
    """Return a one-to-one scramble of a global coordinate (splitmix64): a tie-break without a preferred direction."""
    z = (np.uint64(y) << np.uint64(32)) | np.uint64(x)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def _is_peak(energy: Mask, allowed: Mask, x: int, y: int, x0: int, y0: int, radius: int) -> bool:
    h, w = energy.shape
    value, key = energy[y, x], _mix(x + x0, y + y0)
    for v in range(max(0, y - radius), min(h, y + radius + 1)):
        for u in range(max(0, x - radius), min(w, x + radius + 1)):
            if allowed[v, u] and energy[v, u] == value and _mix(u + x0, v + y0) > key:
                return False
    return True


@njit(cache=True, nogil=True)
def peaks(energy: Mask, highest: Mask, allowed: Mask, x0: int, y0: int, radius: int, count: int, labels: Labels) -> int:
    """Number the strict maxima of *energy* among allowed pixels within *radius* from *count* + 1 on; return the last.

    *highest* is *energy* of the allowed pixels, dilated by *radius*. Among equals the scrambled global coordinate
    decides, so that a plateau gets evenly spread maxima. Reach: *radius*.
    """
    h, w = energy.shape
    for y in range(h):
        for x in range(w):
            if allowed[y, x] and energy[y, x] == highest[y, x]:
                if _is_peak(energy, allowed, x, y, x0, y0, radius):
                    count += 1
                    labels[y + 1, x + 1] = count
    return count


@njit(cache=True, nogil=True)
def components(free: Mask, barred: Mask, labels: Labels, extent: int, count: int) -> int:
    """Number the 4-connected components of *free*, as far as they fit, from *count* + 1 on; return the last number.

    A component fits when no side of its box exceeds *extent*, it holds no *barred* pixel and touches no label. Numbers
    follow the first pixels in raster order. Used up (all padded, in place): pixels of *free* that got a number become
    0, those that did not 2. Reach: *extent*.
    """
    flat, open_, bars, stride = labels.ravel(), free.ravel(), barred.ravel(), labels.shape[1]
    queue = np.empty(flat.size, np.int32)
    for first in range(stride, flat.size - stride):
        if open_[first] != 1 or flat[first] != 0:
            continue
        end, fits = _flood(flat, open_, bars, stride, first, extent, queue)
        if fits:
            count += 1
            for i in range(end):
                flat[queue[i]] = count
                open_[queue[i]] = 0
    return count


@njit(cache=True, nogil=True)
def _flood(
    flat: Labels, free: Mask, barred: Mask, stride: int, first: int, extent: int, queue: Labels
) -> tuple[int, bool]:
    """Collect the component of pixel *first* in *queue* (2 in *free*); return its size and whether it fits."""
    queue[0], end, i, fits = first, 1, 0, True
    free[first] = 2
    x0 = x1 = first % stride
    last = first
    while i < end:
        p = queue[i]
        i += 1
        x = p % stride
        x0, x1, last = min(x0, x), max(x1, x), max(last, p)
        fits = fits and barred[p] == 0
        for q in (p + 1, p + stride, p - 1, p - stride):
            if free[q] == 1 and flat[q] == 0:
                free[q] = 2
                queue[end] = q
                end += 1
            elif flat[q] > 0:
                fits = False
    return end, fits and x1 - x0 < extent and last // stride - first // stride < extent
