"""Counts of points in axis-aligned squares, over every place that such a square can have.

All coordinates are whole numbers, and a square holds what lies in [x, x + sx) × [y, y + sy). A square is named by its
corner (x, y). Which points it holds changes only where its left side passes a point, or its right side does: between
two such events all corners are alike, so the last of them stands for all.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MOST_PAIRS = 2_000
"""Pairs of events that are looked at in one go; a part of the plane with more is halved first."""


@njit(cache=True, nogil=True)
def bins_of(x: Ints, y: Ints, bx: int, by: int, nx: int, ny: int) -> tuple[Ints, Ints]:
    """Return the points in the order of their bins (row by row), and where each bin begins in it (ny * nx + 1)."""
    starts = np.zeros(ny * nx + 1, np.int64)
    for i in range(len(x)):
        starts[y[i] // by * nx + x[i] // bx + 1] += 1
    for k in range(ny * nx):
        starts[k + 1] += starts[k]
    at, order = starts[:-1].copy(), np.empty(len(x), np.int64)
    for i in range(len(x)):
        k = y[i] // by * nx + x[i] // bx
        order[at[k]] = i
        at[k] += 1
    return order, starts


@njit(cache=True, nogil=True)
def better(p: int, n: int, best_p: int, best_n: int) -> bool:
    """Whether the share p / n is higher than the best one, exactly; of none there is no share."""
    return n > 0 and (best_n == 0 or p * best_n > best_p * n)


@njit(cache=True, nogil=True)
def _allowed(x: int, y: int, sx: int, sy: int, taken: Ints) -> bool:
    """Whether a square at (x, y) overlaps none of the *taken* ones (m, 4: x0, y0, x1, y1)."""
    for k in range(len(taken)):
        if x < taken[k, 2] and x + sx > taken[k, 0] and y < taken[k, 3] and y + sy > taken[k, 1]:
            return False
    return True


@njit(cache=True, nogil=True)
def _events(values: Ints, n: int, size: int, low: int, high: int, stops: Ints) -> Ints:
    """Return the last corner of each run of corners in [low, high] that are alike, ascending."""
    out = np.empty(2 * n + len(stops) + 1, np.int64)
    k = 0
    for i in range(n):
        for at in (values[i], values[i] - size):
            if low <= at < high:
                out[k] = at
                k += 1
    for i in range(len(stops)):
        at = stops[i] - size
        if low <= at < high:
            out[k] = at
            k += 1
    out[k] = high
    return np.unique(out[: k + 1])


@njit(cache=True, nogil=True)
def best_in_block(
    x: Ints, y: Ints, flag: NDArray[np.uint8], order: Ints, starts: Ints, grid: tuple[int, int, int, int],
    block: tuple[int, int, int, int], size: tuple[int, int], least: int, enough: int, taken: Ints, best: Ints,
) -> None:  # fmt: skip
    """Put the best square with its corner in *block* into *best*, if it is better than what that holds.

    Parameters
    ----------
    x, y : int64 (n,)
    flag : uint8 (n,)
        Points that count as positive.
    order, starts
        From :func:`bins_of`; *grid* is the width and height of a bin, and how many there are in x and y.
    block : (x0, y0, x1, y1)
        Corners looked at, both ends among them.
    size : (int, int)
    least : int
        The best is the highest share of positives among squares with at least so many points; 0: the most points.
    enough : int
        Stop at the first square with so many points; 0: look on.
    taken : int64 (m, 4)
    best : int64 (4,)
        Positives, points, x, y of the best square so far.
    """
    (bx, by, nx, ny), (sx, sy) = grid, size
    room = 64
    stack = np.empty((room, 4), np.int64)
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = block
    top = 1
    while top and not (enough and best[1] >= enough):
        top -= 1
        x0, y0, x1, y1 = stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3]
        i0, i1 = max(0, x0 // bx), min(nx - 1, (x1 + sx - 1) // bx)
        j0, j1 = max(0, y0 // by), min(ny - 1, (y1 + sy - 1) // by)
        count = 0
        for j in range(j0, j1 + 1):
            count += starts[j * nx + i1 + 1] - starts[j * nx + i0] if i1 >= i0 else 0
        px, py, rows = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
        n = all_positive = sure_negative = 0
        for j in range(j0, j1 + 1):
            for k in range(starts[j * nx + i0], starts[j * nx + i1 + 1] if i1 >= i0 else starts[j * nx + i0]):
                i = order[k]
                if x0 <= x[i] < x1 + sx and y0 <= y[i] < y1 + sy:
                    px[n], py[n], rows[n] = x[i], y[i], i
                    n += 1
                    all_positive += flag[i]
                    within = x1 <= x[i] < x0 + sx and y1 <= y[i] < y0 + sy
                    sure_negative += within and not flag[i]
        if least == 0:
            if n <= best[1]:
                continue
        elif n < least or not better(all_positive, max(all_positive + sure_negative, least), best[0], best[1]):
            continue
        xs = _events(px, n, sx, x0, x1, taken[:, 0])
        ys = _events(py, n, sy, y0, y1, taken[:, 1])
        if len(xs) * len(ys) > MOST_PAIRS and top + 2 <= room and (x1 > x0 or y1 > y0):
            if (len(xs) >= len(ys) and x1 > x0) or y1 == y0:
                half = min(xs[len(xs) // 2], x1 - 1)
                stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3] = half + 1, y0, x1, y1
                stack[top + 1, 0], stack[top + 1, 1], stack[top + 1, 2], stack[top + 1, 3] = x0, y0, half, y1
            else:
                half = min(ys[len(ys) // 2], y1 - 1)
                stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3] = x0, half + 1, x1, y1
                stack[top + 1, 0], stack[top + 1, 1], stack[top + 1, 2], stack[top + 1, 3] = x0, y0, x1, half
            top += 2
            continue
        _look_at_all(px[:n], py[:n], flag, rows, xs, ys, sx, sy, least, taken, best)


@njit(cache=True, nogil=True)
def _look_at_all(
    px: Ints, py: Ints, flag: NDArray[np.uint8], rows: Ints, xs: Ints, ys: Ints, sx: int, sy: int, least: int,
    taken: Ints, best: Ints,
) -> None:  # fmt: skip
    """Count the points in the square of every corner (xs × ys), each by sums of what begins and ends before it."""
    points = np.zeros((len(ys) + 1, len(xs) + 1), np.int32)
    positives = np.zeros((len(ys) + 1, len(xs) + 1), np.int32)
    for k in range(len(px)):
        a, b = np.searchsorted(xs, px[k] - sx + 1), np.searchsorted(xs, px[k], side="right")
        c, d = np.searchsorted(ys, py[k] - sy + 1), np.searchsorted(ys, py[k], side="right")
        if a >= b or c >= d:
            continue
        points[c, a] += 1
        points[c, b] -= 1
        points[d, a] -= 1
        points[d, b] += 1
        if flag[rows[k]]:
            positives[c, a] += 1
            positives[c, b] -= 1
            positives[d, a] -= 1
            positives[d, b] += 1
    for j in range(len(ys)):
        n = p = 0
        for i in range(len(xs)):
            n += points[j, i]
            p += positives[j, i]
            points[j, i] = n + (points[j - 1, i] if j else 0)
            positives[j, i] = p + (positives[j - 1, i] if j else 0)
            found, good = points[j, i], positives[j, i]
            if least == 0:
                if found <= best[1]:
                    continue
            elif found < least or not better(good, found, best[0], best[1]):
                continue
            if _allowed(xs[i], ys[j], sx, sy, taken):
                best[0], best[1], best[2], best[3] = good, found, xs[i], ys[j]
