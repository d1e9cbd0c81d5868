"""The numbers of regions: areas, counts, densities and shares with intervals, measurements, distances between types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.analysis.counted import CountedCells
from wsipipe.analysis.derived import NEGATIVE
from wsipipe.analysis.fields import FEWEST, Bootstrap, Fields, ends, fields_of
from wsipipe.analysis.regions import TISSUE
from wsipipe.analysis.scores import STRENGTH, allred, h_score
from wsipipe.settings import SummariseSettings

if TYPE_CHECKING:
    import geopandas

Row = dict[str, Any]
HEAD = ("region", "classification", "kind", "parent", "area_mm2", "cells")
"""Columns that every row begins with."""
DECILES = (10, 20, 30, 40, 60, 70, 80, 90)
"""Percentiles beside the median."""
SCORES = (
    *("h_score", "h_score_low", "h_score_high"),
    *("allred", "allred_low", "allred_high", "allred_proportion", "allred_intensity"),
)
"""Columns of cells that are graded in steps."""
DECIMALS = 6
"""Of every number: below what processors round differently."""


def summarise(
    cells: CountedCells,
    regions: geopandas.GeoDataFrame,
    settings: SummariseSettings,
    tissue_mm2: float | None = None,
) -> list[Row]:
    """Return a row of numbers for each of *regions* (:mod:`wsipipe.analysis.regions`), in their order.

    A cell belongs to every region that holds its centre, or on whose border it lies; to none in whose hole it lies.
    Cells and regions in another order give the same rows in that order.

    Parameters
    ----------
    cells : CountedCells
    regions : GeoDataFrame
        One of kind ``tissue`` takes every cell; its shape, which may be None, only tells the area of the fields.
    settings : SummariseSettings
    tissue_mm2 : float, optional
        The analysed tissue that was recorded, without what could not be read.
    """
    return [_row(cells, region, settings, tissue_mm2) for region in regions.to_dict("records")]


def _row(cells: CountedCells, region: Mapping[str, Any], settings: SummariseSettings, tissue_mm2: float | None) -> Row:
    shape, mpp, whole = region["geometry"], cells.mpp, region["kind"] == TISSUE
    inside = np.arange(len(cells.xy_base)) if whole else cells_in(shape, cells.xy_base)
    area = tissue_mm2 if whole else float(shapely.area(shape)) * mpp[0] * mpp[1] * 1e-6
    fields = fields_of(shape, mpp, cells.fields[inside])
    known = enough(area, fields)
    boot = Bootstrap(len(fields.keys) if known else 0, settings.resamples, settings.seed)
    row: Row = {
        "region": region["name"],
        "classification": region["classification"],
        "kind": region["kind"],
        "parent": region["parent"],
        "area_mm2": area,
        "cells": len(inside),
        "fields": len(fields.keys),
        "intervals": _told(known, shape is not None),
    }
    row |= _density("", len(inside), fields.counts(cells.fields[inside]), area, fields, boot)
    row |= _types(cells, inside, area, fields, boot)
    for name, values in cells.measurements.items():
        row |= spread(name, values[inside])
    for (one, other), distance in cells.nearest_um.items():
        label = f"{one}_to_{other}_um" if one else "nearest_um"
        row |= dict(list(spread(label, distance[inside]).items())[:2])
    return {name: round(v, DECIMALS) if isinstance(v, float) else v for name, v in row.items()}


def enough(area_mm2: float | None, fields: Fields) -> bool:
    """Whether a region has room for eight whole fields; where its area is not known, as many fields that hold cells."""
    return len(fields.keys) >= FEWEST and (area_mm2 is None or area_mm2 >= FEWEST * 0.25)


def cells_in(shape: shapely.Geometry, xy_base: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return which of the points (n, 2) lie inside *shape* or on its border."""
    x0, y0, x1, y1 = shapely.bounds(shape)
    x, y = xy_base.T
    near = np.flatnonzero((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))
    shapely.prepare(shape)
    return np.asarray(near[shapely.intersects_xy(shape, x[near], y[near])], np.intp)


def spread(name: str, values: NDArray[np.float64]) -> Row:
    """Return mean, median and deciles of *values*, those that are numbers; None of none."""
    sorted_ = np.sort(values[np.isfinite(values)])  # so that their order does not count
    names = [f"{name}_mean", f"{name}_median", *(f"{name}_p{p}" for p in DECILES)]
    if not len(sorted_):
        return dict.fromkeys(names)
    numbers = [float(sorted_.mean()), *np.percentile(sorted_, [50, *DECILES]).tolist()]
    return dict(zip(names, numbers))


def _told(known: bool, shape: bool) -> str:
    """Return what stands behind the intervals, or why there are none."""
    if not known:
        return f"none: fewer than {FEWEST} fields of 0.25 mm²"
    return "95 %, bootstrap over fields" if shape else "95 %, bootstrap over fields; of shares only, no tissue outline"


def _density(
    name: str, count: int, by_field: NDArray[np.int64], area: float | None, fields: Fields, boot: Bootstrap
) -> Row:
    prefix = f"{name}_" if name else "cells_"
    low, high = boot.interval(by_field, fields.area_mm2)
    return {
        f"{prefix}per_mm2": count / area if area else None,
        f"{prefix}per_mm2_low": low,
        f"{prefix}per_mm2_high": high,
    }


def _share(name: str, above: NDArray[np.int64], below: NDArray[np.int64], boot: Bootstrap) -> Row:
    low, high = boot.interval(above, below)
    total = int(below.sum())
    return {
        f"{name}_share": int(above.sum()) / total if total else None,
        f"{name}_share_low": low,
        f"{name}_share_high": high,
    }


def _types(cells: CountedCells, inside: NDArray[np.intp], area: float | None, fields: Fields, boot: Bootstrap) -> Row:
    """Return counts, densities and shares of each type, and how each stained where that is known."""
    row: Row = {}
    keys, kinds = cells.fields[inside], cells.type_[inside]
    everything = fields.counts(keys)
    for name, chosen in _groups(cells, kinds):
        counts = fields.counts(keys[chosen])
        if name:
            row[f"{name}_cells"] = int(counts.sum())
            row |= _density(name, int(counts.sum()), counts, area, fields, boot)
            row |= _share(name, counts, everything, boot)
        if cells.grades:
            prefix, grades = f"{name}_" if name else "", cells.grade[inside][chosen]
            row |= {f"{prefix}{grade.lower()}_cells": int((grades == grade).sum()) for grade in cells.grades}
            row |= _positive(prefix, grades, keys[chosen], area, fields, boot, "1+" in cells.grades)
    return row


def _groups(cells: CountedCells, kinds: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield all cells under the name "", then those of each type."""
    yield "", np.ones(len(kinds), bool)
    yield from ((name, kinds == i) for i, name in enumerate(cells.types))


def _positive(
    prefix: str, grades: NDArray[np.object_], keys: NDArray[np.int64], area: float | None, fields: Fields,
    boot: Bootstrap, stepped: bool,
) -> Row:  # fmt: skip
    """Return how many cells stained, their density, and their share of those whose grade is known.

    Of cells graded in steps also H-score and Allred.
    """
    scored = grades != ""
    positive = fields.counts(keys[scored & (grades != NEGATIVE)])
    row: Row = {f"{prefix}unscored_cells": int((~scored).sum()), f"{prefix}positive_cells": int(positive.sum())}
    row |= _density(f"{prefix}positive", int(positive.sum()), positive, area, fields, boot)
    row |= _share(f"{prefix}positive", positive, fields.counts(keys[scored]), boot)
    return row | _steps(prefix, grades, keys, fields, boot) if stepped else row


def _steps(prefix: str, grades: NDArray[np.object_], keys: NDArray[np.int64], fields: Fields, boot: Bootstrap) -> Row:
    """Return H-score and Allred of the cells whose grade is known, with intervals."""
    counts = np.stack([fields.counts(keys[grades == grade]) for grade in STRENGTH]).astype(np.float64)
    weight = np.arange(len(STRENGTH))
    strong, all_, positive = weight @ counts, counts.sum(0), counts[1:].sum(0)
    total = counts.sum(1)
    if not total.sum():
        return dict.fromkeys(f"{prefix}{name}" for name in SCORES)
    proportion, intensity = allred(total[1:].sum() / total.sum(), weight @ total / max(total[1:].sum(), 1))
    low, high = boot.interval(100 * strong, all_)
    drawn: list[int] = []
    if boot.known:
        sums = zip(*(boot.sums(values).tolist() for values in (strong, positive, all_)))
        drawn = [sum(allred(some / every, weighed / max(some, 1))) for weighed, some, every in sums if every]
    values = (h_score(total.tolist()), low, high, proportion + intensity, *ends(np.array(drawn)), proportion, intensity)
    return {f"{prefix}{name}": value for name, value in zip(SCORES, values)}
