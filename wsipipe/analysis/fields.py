"""How sure a density or a share is: a bootstrap over fields of 0.25 mm², since neighbouring cells are alike.

Cells drawn one by one would look far surer than they are. A field is a square of the slide, on a grid anchored at its
origin; those that a region covers in part count with the part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.units import Pair

SIDE_UM = 500.0
"""Side of a field: 0.25 mm²."""
FEWEST = 8
"""Fields below which no interval is given: so few tell nothing of how they vary."""
LEVELS = (2.5, 97.5)
"""Percentiles of the resampled values: the ends of a 95 % interval."""
NONE = (float("nan"), float("nan"))


@dataclass(frozen=True, eq=False)
class Fields:
    """The fields of a region, sorted by row and column.

    Attributes
    ----------
    keys : int64 (k,)
    area_mm2 : float64 (k,)
        What the region covers of each; NaN where the region's outline is not known.
    """

    keys: NDArray[np.int64]
    area_mm2: NDArray[np.float64]

    def counts(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many of the cells with these *keys* lie in each field (k,)."""
        places = np.searchsorted(self.keys, keys)
        return np.bincount(places, minlength=len(self.keys)).astype(np.int64)


def field_keys(xy_base: NDArray[np.float64], mpp: Pair) -> NDArray[np.int64]:
    """Return the key (n,) of the field that holds each point (n, 2), in base pixels."""
    column, row = np.floor(xy_base * np.array(mpp) / SIDE_UM).astype(np.int64).T
    return np.asarray(row * 1_000_000 + column, np.int64)


def fields_of(shape: shapely.Geometry | None, mpp: Pair, cells: NDArray[np.int64]) -> Fields:
    """Return the fields of a region whose cells have the keys *cells*; of one without *shape* those that hold cells.

    Parameters
    ----------
    shape : shapely.Geometry or None
        In base pixels.
    mpp : (float, float)
        Microns per base pixel.
    cells : int64 (n,)
    """
    if shape is None:
        keys = np.unique(cells)
        return Fields(keys, np.full(len(keys), np.nan))
    side = SIDE_UM / np.array(mpp)
    found: dict[int, float] = {}
    x0, y0, x1, y1 = shapely.bounds(shape)
    columns = np.arange(int(x0 // side[0]), int(x1 // side[0]) + 1)
    for row in range(int(y0 // side[1]), int(y1 // side[1]) + 1):
        strip = shapely.intersection(shape, shapely.box(x0 - 1, row * side[1], x1 + 1, (row + 1) * side[1]))
        left, right = columns * side[0], (columns + 1) * side[0]
        parts = shapely.intersection(strip, shapely.box(left, row * side[1], right, (row + 1) * side[1]))
        areas = shapely.area(parts) * (mpp[0] * mpp[1] * 1e-6)
        found |= {row * 1_000_000 + c: a for c, a in zip(columns.tolist(), areas.tolist()) if a > 0}
    for key in np.unique(cells).tolist():
        found.setdefault(key, 0.0)
    keys = np.array(sorted(found), np.int64)
    return Fields(keys, np.array([found[key] for key in keys.tolist()]))


class Bootstrap:
    """Intervals of ratios of sums over fields, each resampled alike.

    Parameters
    ----------
    fields : int
        How many there are.
    resamples : int
    seed : int
        The same for every region, so that neither their order nor their number counts.
    """

    def __init__(self, fields: int, resamples: int, seed: int) -> None:
        self.known = fields >= FEWEST
        rng = np.random.default_rng(seed)
        chance = np.full(fields, 1 / fields) if self.known else np.zeros(0)
        self._times = rng.multinomial(fields, chance, resamples).astype(np.float64) if self.known else np.zeros((0, 0))

    def interval(self, above: NDArray[np.generic], below: NDArray[np.generic]) -> tuple[float, float]:
        """Return the 95 % interval of sum(*above*) / sum(*below*), each (k,); NaN where none can be told."""
        if not self.known or not np.isfinite(below.astype(np.float64)).all():
            return NONE
        tops, bottoms = self.sums(above), self.sums(below)
        return ends(tops[bottoms > 0] / bottoms[bottoms > 0])

    def sums(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the sum of *values* (k,) over the fields of each resample."""
        return np.asarray(self._times @ values.astype(np.float64), np.float64)


def ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the 95 % interval of resampled *values*; NaN of none."""
    if not len(values):
        return NONE
    low, high = np.percentile(values, LEVELS)
    return float(low), float(high)
