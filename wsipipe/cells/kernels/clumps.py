"""Cores that hold several nuclei, told by their shape and parted where the marker map dips between them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.cells.kernels import regions

SOLIDITY = 0.9
"""Least share that a single nucleus's core has of the lattice points in the hull of its pixel centres."""

Labels = NDArray[np.int32]
Image = NDArray[np.uint8]


def part(labels: Labels, high: Image, count: int, part_px: float, share_px: float) -> int:
    """Number the parts of each clump anew, in place; return the last number.

    A clump is a core with two parts or more in *high*, fewer than *share_px* pixels for each of them, and a solidity
    below :data:`SOLIDITY`. What lies between its parts becomes free, to be grown into. Reach: a core's own box.

    Parameters
    ----------
    labels : int32 (h + 2, w + 2)
        Cores numbered 1..count, padded.
    high : uint8 (h, w)
        1 where the marker map is above a second, higher level.
    count : int
    part_px : float
        Pixels of the smallest part (4-connected).
    share_px : float
    """
    seen = high * (labels[1:-1, 1:-1] > 0)
    total, parts = cv2.connectedComponents(seen, connectivity=4, ltype=cv2.CV_32S)
    area, size, owner = _areas(labels, np.asarray(parts, np.int32), count, total)
    large = 1 + np.flatnonzero(size[1:] >= part_px)
    found = np.bincount(owner[large], minlength=count + 1)
    box = regions.boxes(labels, count)
    for core in np.flatnonzero((found >= 2) & (area < share_px * found)):
        x0, y0, x1, y1 = box[core]
        window = labels[y0:y1, x0:x1]
        inside = window == core
        if area[core] < SOLIDITY * _hull_points(inside):
            window[inside] = 0
            pieces = parts[y0 - 1 : y1 - 1, x0 - 1 : x1 - 1]
            numbers = [core, *range(count + 1, count + found[core])]
            for piece, number in zip(large[owner[large] == core], numbers, strict=True):
                window[pieces == piece] = number
            count = numbers[-1]
    return count


@njit(cache=True, nogil=True)
def _areas(labels: Labels, parts: Labels, count: int, total: int) -> Any:
    """Return the pixels of each core, those of each part, and the core of each part."""
    area, size, owner = np.zeros(count + 1, np.int64), np.zeros(total, np.int64), np.zeros(total, np.int64)
    h, w = parts.shape
    for y in range(h):
        for x in range(w):
            core, piece = labels[y + 1, x + 1], parts[y, x]
            area[core] += 1
            size[piece] += 1
            owner[piece] = core
    return area, size, owner


def _hull_points(inside: NDArray[np.bool_]) -> int:
    """Return how many lattice points lie in the hull of the pixel centres (Pick's theorem)."""
    y, x = np.nonzero(inside)
    corners = np.asarray(cv2.convexHull(np.stack([x, y], 1).astype(np.int32)), np.int64)[:, 0]
    step = np.abs(corners - np.roll(corners, 1, axis=0))
    doubled = abs(int((corners[:, 0] * np.roll(corners[:, 1], 1) - corners[:, 1] * np.roll(corners[:, 0], 1)).sum()))
    return (doubled + int(np.gcd(step[:, 0], step[:, 1]).sum())) // 2 + 1
