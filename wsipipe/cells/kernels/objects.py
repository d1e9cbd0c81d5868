"""Compiled loops over objects that another network found."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Labels = NDArray[np.int32]


@njit(cache=True, nogil=True)
def keep_largest(labels: Labels, count: int) -> None:
    """Clear all but the largest 4-connected part of each of the labels 1..*count* (padded, in place).

    Of parts of the same size the one whose first pixel comes first stays. Reach: an object's own box.
    """
    flat, stride = labels.ravel(), labels.shape[1]
    part = np.zeros(flat.size, np.int32)
    stack = np.empty(flat.size, np.int32)
    best, size = np.zeros(count + 1, np.int32), np.zeros(count + 1, np.int64)
    parts = 0
    for start in range(flat.size):
        k = flat[start]
        if k == 0 or part[start] != 0:
            continue
        parts += 1
        part[start] = parts
        stack[0], top, pixels = start, 1, 0
        while top > 0:
            top -= 1
            p = stack[top]
            pixels += 1
            for q in (p + 1, p + stride, p - 1, p - stride):
                if flat[q] == k and part[q] == 0:
                    part[q] = parts
                    stack[top] = q
                    top += 1
        if pixels > size[k]:
            size[k], best[k] = pixels, parts
    for p in range(flat.size):
        if part[p] != best[flat[p]]:
            flat[p] = 0
