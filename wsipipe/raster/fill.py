"""Polygons to pixels: which pixel centres lie inside a shape of any number of rings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

Rings = Sequence[NDArray[np.float64]]
"""Closed or open rings (n, 2) of one shape, x before y; holes and further parts are rings like any other."""


def fill(labels: NDArray[np.int32], shapes: Sequence[Rings], values: Sequence[int]) -> None:
    """Paint *shapes* into *labels* (H, W) one after the other, each with its value; later ones lie on top.

    A pixel belongs to a shape that holds its centre (pixel centres at halves) by the even-odd rule; one whose centre
    lies on a border shared by two shapes belongs to the right and lower of them.
    """
    edges = [np.concatenate([_edges(ring) for ring in rings]) if rings else np.zeros((0, 4)) for rings in shapes]
    offsets = np.cumsum([0, *(len(part) for part in edges)])
    joined = np.concatenate(edges) if edges else np.zeros((0, 4))
    fill_edges(labels, joined, offsets, np.asarray(values, np.int32))


def area(rings: Rings) -> float:
    """Return the area of the largest of *rings*, in square pixels; 0 for what encloses nothing."""
    return max((abs(_signed_area(np.asarray(ring, np.float64))) for ring in rings), default=0.0)


@njit(cache=True, nogil=True)
def _signed_area(ring: NDArray[np.float64]) -> float:
    total = 0.0
    for i in range(len(ring)):
        x0, y0 = ring[i - 1, 0] - ring[0, 0], ring[i - 1, 1] - ring[0, 1]
        x1, y1 = ring[i, 0] - ring[0, 0], ring[i, 1] - ring[0, 1]
        total += x0 * y1 - x1 * y0
    return total / 2


def _edges(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    edges = np.empty((len(ring), 4))
    edges[:, :2] = ring
    edges[:-1, 2:] = ring[1:]
    edges[-1:, 2:] = ring[:1]
    return edges


@njit(cache=True, nogil=True)
def fill_edges(
    labels: NDArray[np.int32], edges: NDArray[np.float64], offsets: NDArray[np.int64], values: NDArray[np.int32]
) -> None:
    """Paint shapes given by their edges (x0, y0, x1, y1); shape k has edges ``offsets[k]`` up to ``offsets[k + 1]``."""
    height, width = labels.shape
    for k in range(len(values)):
        part = edges[offsets[k] : offsets[k + 1]]
        if len(part) == 0:
            continue
        crossings = np.empty(len(part), np.float64)
        first = max(0, int(np.ceil(part[:, 1].min() - 0.5)))
        last = min(height, int(np.ceil(part[:, 1].max() - 0.5)))
        for row in range(first, last):
            y, count = row + 0.5, 0
            for i in range(len(part)):
                xa, ya, xb, yb = part[i, 0], part[i, 1], part[i, 2], part[i, 3]
                if (ya <= y) != (yb <= y):
                    # from the upper end, so that a border shared by two rings is crossed at the very same place
                    if ya > yb:
                        xa, ya, xb, yb = xb, yb, xa, ya
                    crossings[count] = xa + (y - ya) / (yb - ya) * (xb - xa)
                    count += 1
            crossings[:count].sort()
            for c in range(0, count - 1, 2):
                left = max(0, int(np.ceil(crossings[c] - 0.5)))
                right = max(0, min(width, int(np.ceil(crossings[c + 1] - 0.5))))
                labels[row, left:right] = values[k]
