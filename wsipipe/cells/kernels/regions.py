"""Compiled loops over label images: numbering, growth, holes and sums.

Every loop is local: a pixel's result depends on pixels within the stated reach and on the order of global coordinates,
never on where the array starts. Most label images here are *padded*: int32 ``(h + 2, w + 2)`` with a ring of zeros, so
that the loops need no edge tests. Where labels are numbered by first pixel in raster order, comparing two labels
compares the global coordinates of these pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_CORNER = 1 << 30
"""Added to a label that is claimed across a corner, until the step is over."""

Labels = NDArray[np.int32]
Mask = NDArray[np.uint8]


@njit(cache=True, nogil=True)
def renumber(labels: Labels, highest: int) -> Any:
    """Number *labels* from 1 by first pixel, in place; return the old numbers by new (int32, entry 0 is 0)."""
    new, old = np.zeros(highest + 1, np.int32), np.zeros(highest + 1, np.int32)
    count = 0
    flat = labels.ravel()
    for p in range(flat.size):
        k = flat[p]
        if k > 0:
            if new[k] == 0:
                count += 1
                new[k] = count
                old[count] = k
            flat[p] = new[k]
    return old[: count + 1].copy()


@njit(cache=True, nogil=True)
def _claim(flat: Labels, free: Mask, p: int, label: int, queue: Labels, end: int) -> int:
    """Claim pixel *p* (a negative label until the step is over); the smaller label wins. Return the queue's end."""
    if free[p]:
        if flat[p] == 0:
            flat[p] = -label
            queue[end] = p
            return end + 1
        if flat[p] < -label:
            flat[p] = -label
    return end


@njit(cache=True, nogil=True)
def _claim_corners(flat: Labels, free: Mask, stride: int, queue: Labels, start: int, end: int) -> int:
    """Claim pixels whose two sides were just claimed and whose diagonal already belonged, by one and the same label."""
    sides = (1, stride, -1, -stride)
    last = end
    for i in range(start, end):
        j = queue[i]
        label = -flat[j]
        for d in range(4):
            p = j + sides[d]
            if free[p] == 0 or (flat[p] < 0 and flat[p] > -_CORNER) or flat[p] > 0:
                continue
            for turn in (1, 3):
                e = sides[(d + turn) % 4]
                if flat[p + e] == -label and flat[j + e] == label:
                    last = _claim(flat, free, p, label + _CORNER, queue, last)
    return last


@njit(cache=True, nogil=True)
def grow(labels: Labels, mask: Mask, reach: NDArray[np.int32]) -> None:
    """Grow all *labels* at once inside *mask*, label k by ``reach[k]`` steps (padded, in place).

    One step takes the free 4-neighbours; two steps in five also the corners between them, so that the front is a
    regular octagon. Of two labels that arrive in the same step the smaller wins. Regions stay 4-connected.
    Reach: one pixel (Chebyshev) a step.
    """
    flat, free, stride = labels.ravel(), mask.ravel(), labels.shape[1]
    queue = np.empty(flat.size, np.int32)
    sides = (1, stride, -1, -stride)
    end = 0
    for p in range(stride, flat.size - stride):
        if flat[p] > 0:
            for s in sides:
                if flat[p + s] == 0 and free[p + s]:
                    queue[end] = p
                    end += 1
                    break
    start = 0
    for step in range(1, reach.max() + 1):
        middle = end
        for i in range(start, middle):
            p = queue[i]
            if reach[flat[p]] >= step:
                for s in sides:
                    if flat[p + s] <= 0:
                        end = _claim(flat, free, p + s, flat[p], queue, end)
        if step % 5 == 2 or step % 5 == 4:
            end = _claim_corners(flat, free, stride, queue, middle, end)
        for i in range(middle, end):
            label = -flat[queue[i]]
            flat[queue[i]] = label - _CORNER if label > _CORNER else label
        start = middle
        if start == end:
            return


@njit(cache=True, nogil=True)
def keep_joined(mask: Mask, labels: Labels, x0: int, y0: int, x1: int, y1: int) -> None:
    """Clear what lies outside a box of the array and is not joined to it by 4-connected pixels of *mask*.

    Both *mask* (0, 1) and *labels*, which lie inside it, are cleared (padded, in place). The box is not empty and
    lies inside the padding.
    """
    h, w = mask.shape
    flat, ids = mask.ravel(), labels.ravel()
    stack, top = np.empty(flat.size - (y1 - y0) * (x1 - x0) + 1, np.int32), 0
    for first, step, count, out in (
        (y0 * w + x0, w, y1 - y0, -1),
        (y0 * w + x1 - 1, w, y1 - y0, 1),
        (y0 * w + x0, 1, x1 - x0, -w),
        ((y1 - 1) * w + x0, 1, x1 - x0, w),
    ):
        for p in range(first, first + count * step, step):
            if flat[p] and flat[p + out] == 1:
                flat[p + out] = 2
                stack[top] = p + out
                top += 1
    while top > 0:
        top -= 1
        p = stack[top]
        for q in (p + 1, p + w, p - 1, p - w):
            if flat[q] == 1 and not (y0 <= q // w < y1 and x0 <= q % w < x1):
                flat[q] = 2
                stack[top] = q
                top += 1
    for y in range(h):
        inside = y0 <= y < y1
        for start, stop in ((0, x0), (x1, w)) if inside else ((0, w), (w, w)):
            for p in range(y * w + start, y * w + stop):
                if flat[p] == 1:
                    flat[p] = ids[p] = 0
                elif flat[p] == 2:
                    flat[p] = 1


@njit(cache=True, nogil=True)
def boxes(labels: Labels, count: int) -> Any:
    """Return the half-open box of every label in array coordinates, int32 (count + 1, 4)."""
    box = np.zeros((count + 1, 4), np.int32)
    h, w = labels.shape
    for y in range(h):
        for x in range(w):
            k = labels[y, x]
            if k > 0:
                if box[k, 3] == 0:
                    box[k, 0], box[k, 1], box[k, 2] = x, y, x + 1
                box[k, 0] = min(box[k, 0], x)
                box[k, 2] = max(box[k, 2], x + 1)
                box[k, 3] = y + 1
    return box


@njit(cache=True, nogil=True)
def _has_hole(labels: Labels, k: int, x0: int, y0: int, x1: int, y1: int) -> bool:
    """Whether the 4-connected region *k* has a hole: four times its Euler number, counted on 2 x 2 quads, is not 4."""
    euler = 0
    for y in range(y0 - 1, y1):
        a, c = labels[y, x0 - 1] == k, labels[y + 1, x0 - 1] == k
        for x in range(x0, x1 + 1):
            b, d = labels[y, x] == k, labels[y + 1, x] == k
            n = int(a) + int(b) + int(c) + int(d)
            if n == 1:
                euler += 1
            elif n == 3:
                euler -= 1
            elif n == 2 and a == d:
                euler += 2
            a, c = b, d
    return euler < 4


@njit(cache=True, nogil=True)
def _fill_one(labels: Labels, k: int, x0: int, y0: int, x1: int, y1: int) -> None:
    """Give label *k* everything that its region encloses: what no 8-connected path joins to the box's surroundings."""
    h, w = y1 - y0 + 2, x1 - x0 + 2
    outside = np.zeros((h, w), np.uint8)
    stack = np.empty(h * w, np.int32)
    stack[0], top = 0, 1
    outside[0, 0] = 1
    while top > 0:
        top -= 1
        py, px = stack[top] // w, stack[top] % w
        for v in range(max(0, py - 1), min(h, py + 2)):
            for u in range(max(0, px - 1), min(w, px + 2)):
                if outside[v, u] == 0 and labels[y0 - 1 + v, x0 - 1 + u] != k:
                    outside[v, u] = 1
                    stack[top] = v * w + u
                    top += 1
    for v in range(1, h - 1):
        for u in range(1, w - 1):
            if outside[v, u] == 0:
                labels[y0 - 1 + v, x0 - 1 + u] = k


@njit(cache=True, nogil=True)
def fill(labels: Labels, box: NDArray[np.int32]) -> None:
    """Fill the holes of every region, enclosed regions included (padded, in place).

    Regions nest or are disjoint, and a region is either whole or swallowed, so the order does not matter.
    Reach: a region's own box.
    """
    for k in range(1, box.shape[0]):
        x0, y0, x1, y1 = box[k]
        if _has_hole(labels, k, x0, y0, x1, y1):
            _fill_one(labels, k, x0, y0, x1, y1)


@njit(cache=True, nogil=True)
def accumulate(labels: Labels, maps: Mask, channels: NDArray[np.int64], x0: int, y0: int, count: int) -> Any:
    """Return per label (sums, box, totals), label k in row k - 1, of a padded label image over *maps* (K, h, w).

    sums int64 (n, 3): pixels, sum of x, sum of y; box int32 (n, 4); both in global pixels, array pixel (0, 0) of the
    maps being (*x0*, *y0*). totals int64 (n, len(channels)): sums of those maps.
    """
    sums = np.zeros((count, 3), np.int64)
    totals = np.zeros((count, channels.size), np.int64)
    h, w = labels.shape
    box = np.zeros((count, 4), np.int32)
    for y in range(1, h - 1):
        gy = y - 1 + y0
        for x in range(1, w - 1):
            k = labels[y, x] - 1
            if k >= 0:
                gx = x - 1 + x0
                if sums[k, 0] == 0:
                    box[k, 0], box[k, 1], box[k, 2] = gx, gy, gx + 1
                box[k, 0] = min(box[k, 0], gx)
                box[k, 2] = max(box[k, 2], gx + 1)
                box[k, 3] = gy + 1
                sums[k, 0] += 1
                sums[k, 1] += gx
                sums[k, 2] += gy
                for c in range(channels.size):
                    totals[k, c] += maps[channels[c], y - 1, x - 1]
    return sums, box, totals


@njit(cache=True, nogil=True)
def relabel(padded: Labels, numbers: Labels, out: Labels) -> None:
    """Write ``numbers[label]`` of the padded image into *out* (h, w), in place."""
    h, w = out.shape
    for y in range(h):
        for x in range(w):
            k = padded[y + 1, x + 1]
            out[y, x] = numbers[k] if k > 0 else 0


@njit(cache=True, nogil=True)
def first_columns(labels: Labels, x: NDArray[np.int32], y: NDArray[np.int32], numbers: NDArray[np.int64]) -> Any:
    """Return the column of each region's first pixel, given the top-left corner of its box (array coordinates)."""
    out = x.copy()
    for i in range(numbers.size):
        while labels[y[i], out[i]] != numbers[i]:
            out[i] += 1
    return out
