"""Hot spots: the squares with the most cells, or the highest share of positive ones, among all that there are.

Not those of a grid: every place of the square is considered. Space is cut into bins of a fraction of the square's side;
from sums over bins follow bounds for all squares whose corner lies in one bin, best first; only where a bound beats the
best square found so far are the places in that bin looked at one by one (:mod:`wsipipe.cells.kernels.squares`). With n
cells,
b bins and m cells in a square that is O(n + b) and O(m + e²) for each bin that is looked at, e being the cells that the
square's sides pass there: in practice a few hundred bins. In the worst case, cells spread so evenly that all places are
alike, every bin is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsipipe.cells.kernels.squares import best_in_block, bins_of
from wsipipe.errors import SettingsError
from wsipipe.units import Pair, Size

UNIT = 64
"""Coordinates are rounded to this part of a base pixel, and whole numbers from there on."""
FEWEST = 500
"""A share is told of at least so many cells; and so many are in the smallest square, where no area is given."""
BINS_PER_SIDE = 48
MOST_BINS = 3_000_000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class HotSpot:
    """A square of the slide.

    Attributes
    ----------
    box : (float, float, float, float)
        x0, y0, x1, y1 in base px; half-open. A square in µm, whatever the pixels are.
    cells : int
        Cells whose centre lies in it; of those that are scored, where shares are compared.
    positive : int or None
        None where it is not known which are.
    area_mm2 : float
    """

    box: tuple[float, float, float, float]
    cells: int
    positive: int | None
    area_mm2: float

    @property
    def cells_per_mm2(self) -> float:
        """Density of the cells."""
        return self.cells / self.area_mm2

    @property
    def positive_share(self) -> float | None:
        """Share of positive cells; None below :data:`FEWEST` cells."""
        return self.positive / self.cells if self.positive is not None and self.cells >= FEWEST else None


def hot_spots(
    xy_base: NDArray[np.float64],
    size: Size,
    mpp: Pair,
    count: int,
    area_mm2: float | None = None,
    positive: NDArray[np.bool_] | None = None,
    *,
    by_share: bool = False,
    fewest: int = FEWEST,
) -> list[HotSpot]:
    """Return up to *count* disjoint squares inside the slide, each the best that overlaps none before it.

    Parameters
    ----------
    xy_base : float64 (n, 2)
        Centres of cells in base px. Their order does not matter.
    size : (int, int)
        Of the slide in base px.
    mpp : (float, float)
    count : int
    area_mm2 : float, optional
        Of each square. Without it each is the smallest that holds *fewest* cells, to 1/64 px.
    positive : bool (n,), optional
    by_share : bool
        Highest share of positive cells, in squares with at least *fewest*, in place of most cells.
    fewest : int

    Returns
    -------
    list of HotSpot
        Fewer than *count*, or none, where no more squares hold a cell (or *fewest* of them).

    Raises
    ------
    SettingsError
        When the square is larger than the slide, or shares are asked for without an area.
    """
    if by_share and area_mm2 is None:
        raise SettingsError("hot spots by positive share need an area: give --hot-spot-area, such as 0.25 (mm2)")
    inside = ((xy_base >= 0) & (xy_base < size)).all(axis=1)
    flags = np.zeros(len(xy_base), np.uint8) if positive is None else positive.astype(np.uint8)
    plane = _Plane.of(xy_base[inside], flags[inside], size)
    if area_mm2 is not None:
        sides = _sides(math.sqrt(area_mm2) * 1000, mpp)
        if sides[0] > plane.limit[0] or sides[1] > plane.limit[1]:
            width, height = size[0] * mpp[0] / 1000, size[1] * mpp[1] / 1000
            raise SettingsError(
                f"--hot-spot-area is {area_mm2:g} mm2, a square of {math.sqrt(area_mm2):.3g} mm, which does not fit "
                f"into the slide ({width:.3g} x {height:.3g} mm); give a smaller one"
            )
    taken: list[tuple[int, int, int, int]] = []
    spots: list[HotSpot] = []
    for _ in range(count):
        if area_mm2 is not None:
            found = plane.best(sides, taken, fewest if by_share else 0)
        else:
            sides, found = _smallest(plane, taken, fewest, mpp)
        if found is None:
            break
        p, n, x, y = found
        taken.append((x, y, x + sides[0], y + sides[1]))
        box = (x / UNIT, y / UNIT, (x + sides[0]) / UNIT, (y + sides[1]) / UNIT)
        area = sides[0] * mpp[0] * sides[1] * mpp[1] / UNIT**2 * 1e-6
        spots.append(HotSpot(box, n, None if positive is None else p, area))
    return spots


def _sides(side_um: float, mpp: Pair) -> tuple[int, int]:
    """Return the sides of a square of *side_um* in units."""
    return max(1, round(side_um / mpp[0] * UNIT)), max(1, round(side_um / mpp[1] * UNIT))


def _smallest(
    plane: _Plane, taken: Sequence[tuple[int, int, int, int]], fewest: int, mpp: Pair
) -> tuple[tuple[int, int], tuple[int, int, int, int] | None]:
    """Return the sides of the smallest square that holds *fewest* cells, and the square (None when there is none)."""
    ratio = mpp[0] / mpp[1]
    largest = min(plane.limit[0], math.floor(plane.limit[1] / ratio))

    def sides(width: int) -> tuple[int, int]:
        return width, max(1, round(width * ratio))

    low, high = 0, min(largest, max(1, round(0.1 * largest * math.sqrt(min(1.0, fewest / max(1, len(plane.x)))))))
    best = plane.best(sides(high), taken, 0, fewest)
    while best is None and high < largest:
        low, high = high, min(largest, 2 * high)
        best = plane.best(sides(high), taken, 0, fewest)
    while best is not None and high - low > 1:  # low holds too few, high enough
        middle = (low + high) // 2
        at = plane.best(sides(middle), taken, 0, fewest)
        low, high, best = (low, middle, at) if at else (middle, high, best)
    return sides(high), best


@dataclass(frozen=True)
class _Plane:
    """Cells in units, sorted, and the size of the slide."""

    x: Ints
    y: Ints
    flag: NDArray[np.uint8]
    limit: tuple[int, int]

    @classmethod
    def of(cls, xy: NDArray[np.float64], flag: NDArray[np.uint8], size: Size) -> _Plane:
        x, y = np.floor(xy * UNIT).astype(np.int64).T
        order = np.lexsort((flag, x, y))
        return cls(x[order], y[order], flag[order], (size[0] * UNIT, size[1] * UNIT))

    def best(
        self, sides: tuple[int, int], taken: Sequence[tuple[int, int, int, int]], least: int, enough: int = 0
    ) -> tuple[int, int, int, int] | None:
        """Return positives, cells, x and y of the best square, None when there is none.

        With *least* the highest share among squares of at least so many cells, else the most cells; with *enough* the
        first square found that holds so many.
        """
        if not len(self.x):
            return None
        bx, by, nx, ny = grid = self._grid(sides)
        order, starts = bins_of(self.x, self.y, bx, by, nx, ny)
        bound = self._bounds(starts, grid, sides, least, order)
        squares = np.array(taken, np.int64).reshape(-1, 4)
        best = np.array([0, enough - 1 if enough else 0, 0, 0], np.int64)
        last = self.limit[0] - sides[0], self.limit[1] - sides[1]
        _close(bound, grid, sides, taken, last)

        def look(k: int) -> None:
            x0, y0 = k % nx * bx, k // nx * by
            block = x0, y0, min(x0 + bx - 1, last[0]), min(y0 + by - 1, last[1])
            best_in_block(self.x, self.y, self.flag, order, starts, grid, block, sides, least, enough, squares, best)

        flat = bound.ravel()
        if flat.max() >= max(enough, 1e-9):
            look(int(flat.argmax()))
        rest = np.flatnonzero(flat > max(_value(best, least) - 1e-12, 0))
        for k in rest[np.argsort(-flat[rest], kind="stable")].tolist():
            if flat[k] <= _value(best, least) - 1e-12 or (enough and best[1] >= enough):
                break
            look(k)
        p, n, x, y = best.tolist()
        return (p, n, x, y) if n >= max(1, least, enough) and (p or not least) else None

    def _grid(self, sides: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return width and height of a bin in units, and how many there are in x and y."""
        ideal = [max(2, side // BINS_PER_SIDE) for side in sides]
        bins = math.prod(n / b for n, b in zip(self.limit, ideal))
        grow = max(1.0, math.sqrt(bins / MOST_BINS))
        bx, by = (math.ceil(b * grow) for b in ideal)
        return bx, by, -(-self.limit[0] // bx), -(-self.limit[1] // by)

    def _bounds(
        self, starts: Ints, grid: tuple[int, int, int, int], sides: tuple[int, int], least: int, order: Ints
    ) -> NDArray[np.float64]:
        """Return an upper bound (ny, nx) for the squares with their corner in each bin."""
        bx, by, nx, ny = grid
        cells = _Sums(np.diff(starts).reshape(ny, nx))
        right, below = (side + b - 2 for side, b in zip(sides, (bx, by)))
        outer = (0, 0, right // bx, below // by)
        most = cells.over(*outer)
        if not least:
            return most.astype(np.float64)
        flagged = np.concatenate([[0], np.cumsum(self.flag[order], dtype=np.int64)])[starts]
        positives = _Sums(np.diff(flagged).reshape(ny, nx))
        inner = (1, 1, sides[0] // bx - 1, sides[1] // by - 1)
        whole = inner[2] >= inner[0] and inner[3] >= inner[1]
        negatives = cells.over(*inner) - positives.over(*inner) if whole else np.zeros_like(most)
        good = positives.over(*outer)
        return np.where(most >= least, good / np.maximum(good + negatives, least), 0.0)


def _close(
    bound: NDArray[np.float64],
    grid: tuple[int, int, int, int],
    sides: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
    last: tuple[int, int],
) -> None:
    """Set the *bound* to nothing for bins all of whose corners lie off the slide or overlap a square that is taken."""
    bx, by, nx, ny = grid
    x0, y0 = np.arange(nx) * bx, np.arange(ny) * by
    bound[:, x0 > last[0]] = bound[y0 > last[1]] = 0
    for tx0, ty0, tx1, ty1 in taken:
        across = (x0 + sides[0] > tx0) & (x0 + bx - 1 < tx1)
        along = (y0 + sides[1] > ty0) & (y0 + by - 1 < ty1)
        bound[np.ix_(along, across)] = 0


def _value(best: Ints, least: int) -> float:
    """Return what bounds are compared with."""
    return float(best[0] / best[1]) if least and best[1] else float(best[1]) if not least else 0.0


class _Sums:
    """Sums over rectangles of a grid."""

    def __init__(self, counts: Ints) -> None:
        self._table = np.zeros((counts.shape[0] + 1, counts.shape[1] + 1), np.int64)
        np.cumsum(np.cumsum(counts, axis=0), axis=1, out=self._table[1:, 1:])

    def over(self, left: int, top: int, right: int, bottom: int) -> Ints:
        """Return for every bin (j, i) the sum over bins j + top .. j + bottom and i + left .. i + right."""
        ny, nx = self._table.shape[0] - 1, self._table.shape[1] - 1
        j, i = np.arange(ny), np.arange(nx)
        y0, y1 = np.minimum(j + top, ny), np.minimum(j + bottom + 1, ny)
        x0, x1 = np.minimum(i + left, nx), np.minimum(i + right + 1, nx)
        table = self._table
        return np.asarray(table[np.ix_(y1, x1)] - table[np.ix_(y0, x1)] - table[np.ix_(y1, x0)] + table[np.ix_(y0, x0)])
