"""Compiled loops from label images to rings: sub-pixel contours, and simplification that keeps their area."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

SHORTEST = 0.5
"""Shorter edges (px) are closed up before simplification."""
NEAREST = 0.1
"""A vertex keeps this distance (px) from both pixel centres, so that contours of distinct pixels never touch."""


@njit(cache=True, nogil=True)
def _crossing(image: NDArray[np.uint8], level: float, x: int, y: int, u: int, v: int) -> float:
    """Return how far from inside pixel (x, y) to outside pixel (u, v) the contour crosses, 0.1 to 0.9 px."""
    h, w = image.shape
    if u < 0 or v < 0 or u >= w or v >= h:
        return 0.5
    a, b = float(image[y, x]), float(image[v, u])
    if a < level or b >= level:
        return 0.5
    return min(1.0 - NEAREST, max(NEAREST, (a - level) / (a - b)))


@njit(cache=True, nogil=True)
def _trace(
    labels: Ints, image: NDArray[np.uint8], level: float, k: int, x0: int, y0: int, shift: Ints, xs: Floats, ys: Floats
) -> int:
    """Write the outer contour of the 4-connected region *k* into *xs*, *ys*; return its number of vertices.

    Starts above (x0, y0), its first pixel in raster order, and keeps the region on the right: one vertex for each pixel
    edge of the boundary. *shift* is the global coordinate of array pixel (0, 0).
    """
    h, w = labels.shape
    x, y, dx, dy, n = x0, y0, 1, 0, 0
    while True:
        u, v = x + dy, y - dx  # the pixel on the left, outside
        t = _crossing(image, level, x, y, u, v)
        xs[n] = x + shift[0] + 0.5 + t * dy
        ys[n] = y + shift[1] + 0.5 - t * dx
        n += 1
        ax, ay = x + dx, y + dy
        if not (0 <= ax < w and 0 <= ay < h and labels[ay, ax] == k):
            dx, dy = -dy, dx  # right turn around a corner of the same pixel
        else:
            bx, by = ax + dy, ay - dx
            if 0 <= bx < w and 0 <= by < h and labels[by, bx] == k:
                x, y, dx, dy = bx, by, dy, -dx
            else:
                x, y = ax, ay
        if x == x0 and y == y0 and dx == 1 and dy == 0:
            return n


@njit(cache=True, nogil=True)
def _area2(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> float:
    """Return twice the signed area of a triangle."""
    return (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)


@njit(cache=True, nogil=True)
def _length(x: float, y: float) -> float:
    return math.sqrt(x * x + y * y)  # ten times as fast as hypot; nothing here overflows


@njit(cache=True, nogil=True)
def _away(px: float, py: float, ax: float, ay: float, bx: float, by: float) -> float:
    """Return the distance of a point from a segment."""
    ux, uy, vx, vy = bx - ax, by - ay, px - ax, py - ay
    square = ux * ux + uy * uy
    t = min(1.0, max(0.0, (ux * vx + uy * vy) / square)) if square > 0 else 0.0
    return _length(vx - t * ux, vy - t * uy)


@njit(cache=True, nogil=True)
def _merge(xs: Floats, ys: Floats, a: int, b: int, c: int, d: int) -> tuple[float, float, float]:
    """Return the vertex E for which A-E-D bounds the same area as A-B-C-D, and how far the line moves (px).

    E lies on the line AB or on the line CD, whichever moves the line less often across itself (Kronenfeld et al. 2020,
    area-preserving segment collapse).
    """
    ax, ay, dx, dy = xs[a], ys[a], xs[d], ys[d]
    base = _length(dx - ax, dy - ay)
    if base < 1e-9:
        return 0.0, 0.0, np.inf
    hb = _area2(ax, ay, dx, dy, xs[b], ys[b]) / base  # signed distances from AD
    hc = _area2(ax, ay, dx, dy, xs[c], ys[c]) / base
    area2 = _area2(ax, ay, xs[b], ys[b], xs[c], ys[c]) + _area2(ax, ay, xs[c], ys[c], dx, dy)
    he = -area2 / base
    on_first = abs(hb) > abs(hc) if hb * hc > 0 else hb * he > 0
    px, py, qx, qy, hq, o = (ax, ay, xs[b], ys[b], hb, c) if on_first else (dx, dy, xs[c], ys[c], hc, b)
    if abs(hq) < 1e-9:
        if abs(he) > 1e-9:
            return 0.0, 0.0, np.inf
        return 0.5 * (xs[b] + xs[c]), 0.5 * (ys[b] + ys[c]), 0.0
    ex, ey = px + (qx - px) * he / hq, py + (qy - py) * he / hq
    rx, ry = (dx, dy) if on_first else (ax, ay)
    moved = max(_away(xs[o], ys[o], ex, ey, rx, ry), _away(ex, ey, qx, qy, xs[o], ys[o]))
    if abs(he) < abs(hq):  # E comes before the vertex whose line it is on, and cuts it off
        moved = max(moved, _away(qx, qy, ex, ey, rx, ry))
    return ex, ey, moved


@njit(cache=True, nogil=True)
def _close_up(xs: Floats, ys: Floats, n: int) -> int:
    """Replace vertices closer than :data:`SHORTEST` by their midpoint, in place; return what is left of *n*.

    Where a contour barely takes in one more pixel, it has a tooth a tenth of a pixel high.
    """
    left = 1
    for i in range(1, n):
        if _length(xs[i] - xs[left - 1], ys[i] - ys[left - 1]) < SHORTEST:
            xs[left - 1], ys[left - 1] = 0.5 * (xs[left - 1] + xs[i]), 0.5 * (ys[left - 1] + ys[i])
        else:
            xs[left], ys[left] = xs[i], ys[i]
            left += 1
    while left > 3 and _length(xs[left - 1] - xs[0], ys[left - 1] - ys[0]) < SHORTEST:
        left -= 1
        xs[0], ys[0] = 0.5 * (xs[left] + xs[0]), 0.5 * (ys[left] + ys[0])
    return left


@njit(cache=True, nogil=True)
def _round_out(xs: Floats, ys: Floats, n: int, work: Floats) -> None:
    """Move each vertex out by a seventh of its second difference, in place, which makes the area unbiased.

    A ring with vertices on a curve lacks the caps between chords and curve: with chords c and turns t, a movement by
    c t / 12 gives them back, and c t is the second difference. And a pixel is a mean over its area (variance 1/12),
    which draws a contour of curvature k = t / c in by k / 24; with c² of 0.7 on a pixel grid, a seventh does for both.
    """
    for i in range(n):
        a, b = (i - 1) % n, (i + 1) % n
        work[0, i] = xs[i] - (xs[a] - 2 * xs[i] + xs[b]) / 7
        work[1, i] = ys[i] - (ys[a] - 2 * ys[i] + ys[b]) / 7
    xs[:n] = work[0, :n]
    ys[:n] = work[1, :n]


@njit(cache=True, nogil=True)
def _sharp(px: float, py: float, qx: float, qy: float, rx: float, ry: float) -> bool:
    """Whether the line P-Q-R turns by more than about 105 degrees at Q, or two of the vertices are in one place."""
    ux, uy, vx, vy = qx - px, qy - py, rx - qx, ry - qy
    lengths = _length(ux, uy) * _length(vx, vy)
    return lengths < 1e-3 or ux * vx + uy * vy < -0.25 * lengths


@njit(cache=True, nogil=True)
def _price(xs: Floats, ys: Floats, work: Floats, link: Ints, b: int, many: int, tolerance: float) -> None:
    """Work out anew the vertex and the movement of merging edge *b* and *many* - 1 edges after it.

    Spikes, and movements that add up to more than three times the tolerance, cost inf.
    """
    before, after = link[0], link[1]
    for _ in range(many):
        a, c = before[b], after[b]
        d = after[c]
        ex, ey, moved = _merge(xs, ys, a, b, c, d)
        if moved <= tolerance:
            p, q = before[a], after[d]
            if (
                moved + max(work[3, b], work[3, c]) > 3 * tolerance
                or _sharp(xs[a], ys[a], ex, ey, xs[d], ys[d])
                or _sharp(xs[p], ys[p], xs[a], ys[a], ex, ey)
                or _sharp(ex, ey, xs[d], ys[d], xs[q], ys[q])
            ):
                moved = np.inf
        work[0, b], work[1, b], work[2, b] = ex, ey, moved
        b = c


@njit(cache=True, nogil=True)
def _simplify(xs: Floats, ys: Floats, n: int, tolerance: float, least: int, work: Floats, link: Ints) -> int:
    """Merge edges of a ring while one moves the line by no more than *tolerance*; return what is left of *n* vertices.

    Small movements come first, and an edge goes before its neighbours if it moves the line less. Area is kept to
    rounding; at least *least* vertices stay. *work* (4, >= n) and *link* (2, >= n) are scratch.
    """
    before, after, cost, sum_moved = link[0], link[1], work[2], work[3]
    sum_moved[:n] = 0.0
    for i in range(n):
        before[i], after[i] = (i - 1) % n, (i + 1) % n
    _price(xs, ys, work, link, 0, n, tolerance)
    left, i = n, 0
    for limit in (0.25 * tolerance, 0.5 * tolerance, tolerance):
        idle = 0  # edges passed since the last merge
        while idle < left and left > least:
            gone = after[i]
            if cost[i] <= limit and cost[i] <= cost[before[i]] and cost[i] <= cost[gone]:
                xs[i], ys[i] = work[0, i], work[1, i]
                sum_moved[i] = max(sum_moved[i], sum_moved[gone]) + cost[i]
                after[i] = after[gone]
                before[after[gone]] = i
                left -= 1
                idle = 0
                _price(xs, ys, work, link, before[before[before[i]]], 6, tolerance)
            idle += 1
            i = after[i]
    for j in range(left):
        work[0, j], work[1, j] = xs[i], ys[i]
        i = after[i]
    xs[:left] = work[0, :left]
    ys[:left] = work[1, :left]
    return left


@njit(cache=True, nogil=True)
def rings(
    labels: Ints,
    numbers: NDArray[np.int64],
    first: Ints,
    pixels: NDArray[np.int64],
    image: NDArray[np.uint8],
    level: float,
    shift: Ints,
    tolerance: float,
) -> Any:
    """Return the contours (xy float64 (N, 2) global px, offsets int64 (n + 1)) of regions, unclosed, in turn.

    Parameters
    ----------
    labels : int32 (h, w)
    numbers, first, pixels : (n,), (n, 2), (n,)
        Which regions, the array coordinates (x, y) of their first pixels, and their pixel counts.
    image, level : uint8 (h, w), float
        Between a pixel at or above *level* and one below, the contour is interpolated; elsewhere it runs halfway.
    shift : int32 (2,)
        Global coordinate of array pixel (0, 0).
    tolerance : float
        Greatest movement of the line by one merge (px); 0 keeps every vertex where the contour crosses.
    """
    longest = 4
    for i in range(numbers.size):
        longest = max(longest, 2 * pixels[i] + 2)  # perimeter of a 4-connected region without holes
    xs, ys = np.empty(longest), np.empty(longest)
    work, link = np.empty((4, longest)), np.empty((2, longest), np.int32)
    offsets = np.zeros(numbers.size + 1, np.int64)
    out = np.empty((64 * numbers.size + longest, 2))
    for i in range(numbers.size):
        n = _trace(labels, image, level, numbers[i], first[i, 0], first[i, 1], shift, xs, ys)
        if tolerance > 0 and n > 6:
            n = _close_up(xs, ys, n)
            _round_out(xs, ys, n, work)
            n = _simplify(xs, ys, n, tolerance, 6, work, link)
        start = offsets[i]
        if start + n > out.shape[0]:
            more = np.empty((2 * out.shape[0] + n, 2))
            more[:start] = out[:start]
            out = more
        out[start : start + n, 0] = xs[:n]
        out[start : start + n, 1] = ys[:n]
        offsets[i + 1] = start + n
    return out[: offsets[-1]].copy(), offsets
