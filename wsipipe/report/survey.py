"""One pass over a slide's cells: histograms, classes, and which parts are worth looking at. Memory stays small."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsipipe.formats.parquet import batches
from wsipipe.formats.table import class_codes
from wsipipe.units import Box

FIELD_UM = 200.0
"""Side of the square fields of view."""
FINE_BINS = 4096
"""Bins that a measurement's range is cut into; quantiles are exact to one of them."""
IN_TISSUE = (0.8, 0.5, 0.2)
"""Least share of tissue in a field: the best of those that reach the first, else of those that reach the next."""
FEWEST = 12
"""A field of fewer cells is not chosen for the mean of a measurement."""

TRIED = 400
"""Squares that are looked at for each reason, from the best on."""

Path = str | os.PathLike[str]
Share = Callable[[Box], float]
Floats = NDArray[np.float64]


class Measurement(NamedTuple):
    """A column of the master file that reports show, and how to name it."""

    column: str
    title: str
    unit: str


MEASUREMENTS = (
    Measurement("area_um2", "Nuclear area", "µm²"),
    Measurement("hematoxylin_od_mean", "Haematoxylin", "optical density"),
    Measurement("eosin_od_mean", "Eosin", "optical density"),
    Measurement("dab_od_mean", "DAB", "optical density"),
    Measurement("eccentricity", "Eccentricity", "0 round, 1 long"),
    Measurement("solidity", "Solidity", "area / convex hull"),
    Measurement("probability", "Probability", "mean, of being nucleus"),
)


@dataclass(frozen=True, eq=False)
class Spread:
    """How a measurement is spread over the cells.

    Attributes
    ----------
    low, high : float
        Ends of the range; nan without cells.
    counts : int64 (classes + 1, FINE_BINS)
        Cells of each class (the last row: without a class) in equal bins from *low* to *high*.
    """

    what: Measurement
    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def edges(self) -> Floats:
        """Edges of the fine bins, (FINE_BINS + 1,)."""
        return np.linspace(self.low, self.high, FINE_BINS + 1)

    def quantile(self, share: float, row: int | None = None) -> float:
        """Return the value below which *share* of the cells lie (of one class, where *row* says which)."""
        counts = self.counts.sum(axis=0) if row is None else self.counts[row]
        total = np.cumsum(counts)
        if not total[-1]:
            return float("nan")
        i = int(np.searchsorted(total, share * total[-1]))
        within = (share * total[-1] - (total[i] - counts[i])) / max(1, counts[i])
        edges = self.edges
        return float(edges[i] + within * (edges[i + 1] - edges[i]))


class Field(NamedTuple):
    """A square of the slide to look at, and why."""

    box: Box
    reason: str
    cells: int


@dataclass(frozen=True, eq=False)
class Survey:
    """What a pass over the cells found.

    Attributes
    ----------
    classes : tuple of str
    by_class : int64 (classes + 1,)
        Cells of each class; the last: without a class.
    spreads : tuple of Spread
        Of those :data:`MEASUREMENTS` that the file has.
    fields : tuple of Field
        Distinct fields of view, in order of interest.
    """

    classes: tuple[str, ...]
    by_class: NDArray[np.int64]
    spreads: tuple[Spread, ...]
    fields: tuple[Field, ...]


def survey(master: Path, about: dict[str, Any], most: int = 6, share: Share | None = None) -> Survey:
    """Return the histograms and classes of a master file, and up to *most* fields of view.

    Parameters
    ----------
    master : path
        Written by :mod:`wsipipe.formats.parquet`.
    about : mapping
        Its metadata.
    most : int
    share : callable, optional
        Returns the share of a box (base pixels) that is tissue: fields are chosen in tissue then.
    """
    classes = tuple(about.get("classes") or {})
    names = set(pq.read_schema(master).names)
    measured = [m for m in MEASUREMENTS if m.column in names]
    ranges = [_range(master, m.column) for m in measured]
    counts = np.zeros((len(measured), len(classes) + 1, FINE_BINS), np.int64)
    squares = _Squares(about)
    by_class = np.zeros(len(classes) + 1, np.int64)
    for batch in batches(master, ["x", "y", "class", *(m.column for m in measured)]):
        kind = class_codes(batch["class"], classes)
        by_class += np.bincount(kind, minlength=len(by_class))
        values = {m.column: batch[m.column].to_numpy(False).astype(np.float64) for m in measured}
        for row, (m, (low, high)) in enumerate(zip(measured, ranges)):
            counts[row] += _histogram(values[m.column], kind, low, high, len(by_class))
        squares.add(batch["x"].to_numpy(), batch["y"].to_numpy(), values)
    spreads = tuple(Spread(m, *r, c) for m, r, c in zip(measured, ranges, counts))
    return Survey(classes, by_class, spreads, squares.choose(most, share))


def _range(master: Path, column: str) -> tuple[float, float]:
    """Return the smallest and largest value of a column, from the file's own statistics; (nan, nan) without cells."""
    file = pq.read_metadata(master)
    place = [file.schema.column(i).path for i in range(file.num_columns)].index(column)
    found = [file.row_group(i).column(place).statistics for i in range(file.num_row_groups)]
    ends = [(s.min, s.max) for s in found if s is not None and s.has_min_max]
    if not ends:
        return float("nan"), float("nan")
    low, high = min(a for a, _ in ends), max(b for _, b in ends)
    return float(low), float(high if high > low else low + 1)


def _histogram(values: Floats, kind: NDArray[np.int64], low: float, high: float, classes: int) -> NDArray[np.int64]:
    """Return how many values of each class fall into each fine bin; those that are no number, into none."""
    good = np.isfinite(values)
    place = ((values[good] - low) / (high - low) * FINE_BINS).astype(np.int64).clip(0, FINE_BINS - 1)
    flat = np.bincount(kind[good] * FINE_BINS + place, minlength=classes * FINE_BINS)
    return flat.reshape(classes, FINE_BINS).astype(np.int64)


class _Squares:
    """Counts and mean measurements of the squares that the slide is cut into."""

    def __init__(self, about: dict[str, Any]) -> None:
        self._width, self._height = about["size"]
        mx, my = about["mpp"]
        self._side = max(1, round(FIELD_UM / mx)), max(1, round(FIELD_UM / my))
        self._across = -(-self._width // self._side[0])
        n = self._across * -(-self._height // self._side[1])
        self._count = np.zeros(n, np.int64)
        self._sums: dict[str, Floats] = {}

    def add(self, x: Floats, y: Floats, values: dict[str, Floats]) -> None:
        """Add cells at *x*, *y* (base pixels) with their measurements."""
        n = len(self._count)
        place = (y // self._side[1]).astype(np.int64) * self._across + (x // self._side[0]).astype(np.int64)
        place = place.clip(0, n - 1)
        self._count += np.bincount(place, minlength=n)
        for name, value in values.items():
            sums = self._sums.setdefault(name, np.zeros(n))
            sums += np.bincount(place, np.nan_to_num(value), minlength=n)

    def choose(self, most: int, share: Share | None = None) -> tuple[Field, ...]:
        """Return distinct squares: the densest, a typical one, and the extremes of size, stain and certainty."""
        chosen: dict[int, str] = {}
        in_tissue = functools.cache(lambda i: 1.0 if share is None else share(self._box(i)))
        for reason, order in self._orders():
            free = [int(i) for i in order if int(i) not in chosen][:TRIED]
            best = next((i for least in IN_TISSUE for i in free if in_tissue(i) >= least), free[0] if free else None)
            if best is not None and len(chosen) < most:
                chosen[best] = reason
        return tuple(Field(self._box(i), reason, int(self._count[i])) for i, reason in chosen.items())

    def _orders(self) -> list[tuple[str, NDArray[np.int64]]]:
        """Return reasons to look at squares, and for each the squares from the best on."""
        filled = np.flatnonzero(self._count)
        many = filled[self._count[filled] >= min(FEWEST, self._count.max(initial=0))]
        if not len(filled):
            return []
        middle = np.abs(self._count[many] - np.median(self._count[many]))
        orders = [("densest", many[np.argsort(-self._count[many], kind="stable")])]
        orders.append(("typical density", many[np.argsort(middle, kind="stable")]))
        for reason, name, sign in (
            ("largest nuclei", "area_um2", -1),
            ("darkest nuclei", "hematoxylin_od_mean", -1),
            ("least certain", "probability", 1),
            ("smallest nuclei", "area_um2", 1),
        ):
            if name in self._sums:
                mean = self._sums[name][many] / self._count[many]
                orders.append((reason, many[np.argsort(sign * mean, kind="stable")]))
        return orders

    def _box(self, i: int) -> Box:
        """Return a square in base pixels, moved inwards at the slide's end."""
        (w, h), (row, column) = self._side, divmod(i, self._across)
        x0, y0 = max(0, min(column * w, self._width - w)), max(0, min(row * h, self._height - h))
        return x0, y0, min(x0 + w, self._width), min(y0 + h, self._height)
