"""Can these cells be right? A few totals of the finished cells, and a line of advice for each that is unlikely.

The limits were chosen so that no validation image warns: see ``docs/decisions/plausible-results.md``.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsipipe.formats.parquet import batches

FEWEST_PER_MM2 = 100.0
"""Cells per mm² of tissue below which they are few; muscle and fat have a few hundred."""
PLAUSIBLE_UM = (4.0, 14.0)
"""Median diameter of nuclei, as of a circle of the same area."""
LEAST_PROBABILITY = 0.78
"""Mean probability of the cells of a slide like those of training."""
MOST_OVERSIZE = 0.05
"""Share of cells that were cut out of objects larger than any cell."""
LEAST_CELLS = 10
"""Of fewer cells, size, probability and share say nothing."""
LONGEST_UM, BINS = 100.0, 2000
"""Diameters are counted in bins of 0.05 µm."""

CHECK_MPP = "wsipipe info SLIDE --estimate-mpp"


class Totals(NamedTuple):
    """What the cells of a slide are like, together; nan without cells or where nothing was measured."""

    cells: int
    oversize: int
    median_um: float
    mean_probability: float


class Doubt(NamedTuple):
    """What is unlikely about a result (its topic), and what to do about it."""

    topic: str
    told: str


def totals(master: str | os.PathLike[str]) -> Totals:
    """Return the totals of a master file, in one pass and in memory that does not grow with it.

    Raises
    ------
    StoreError
        When *master* is not a master file of wsipipe.
    """
    cells, oversize, known, probability = 0, 0, 0, 0.0
    counts = np.zeros(BINS, np.int64)
    for batch in batches(master, ["area_um2", "probability", "oversize"]):
        cells += batch.num_rows
        oversize += int(batch["oversize"].to_numpy(zero_copy_only=False).sum())
        values = batch["probability"].to_numpy(zero_copy_only=False).astype(np.float64)
        known, probability = known + int(np.isfinite(values).sum()), probability + float(np.nansum(values))
        counts += _histogram(batch["area_um2"].to_numpy(zero_copy_only=False))
    return Totals(cells, oversize, _median(counts), round(probability / known, 4) if known else float("nan"))


def _histogram(area_um2: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return how many cells have a diameter in each bin."""
    diameter = 2 * np.sqrt(area_um2[np.isfinite(area_um2)].astype(np.float64) / np.pi)
    places = np.minimum(diameter * (BINS / LONGEST_UM), BINS - 1).astype(np.int64)
    return np.bincount(places, minlength=BINS)


def _median(counts: NDArray[np.int64]) -> float:
    total = np.cumsum(counts)
    if not total[-1]:
        return float("nan")
    return float((np.searchsorted(total, total[-1] / 2) + 0.5) * LONGEST_UM / BINS)


def doubts(found: Totals, tissue_mm2: float) -> list[Doubt]:
    """Return what is unlikely about cells found in so much tissue; nothing where there is no tissue."""
    if not tissue_mm2:
        return []
    few = _few(found.cells, tissue_mm2)
    if found.cells < LEAST_CELLS:
        return few
    return [*few, *_size(found.median_um), *_probability(found.mean_probability), *_oversize(found)]


def _few(cells: int, tissue_mm2: float) -> list[Doubt]:
    if cells >= FEWEST_PER_MM2 * tissue_mm2:
        return []
    area = f"{tissue_mm2:.2g}"
    told = f"only {cells:,} cells in {area} mm² of tissue" if cells else f"no cells in {area} mm² of tissue"
    advice = f"check the resolution (`{CHECK_MPP}`), look at the overlay, try --stain normalised or a lower --threshold"
    return [Doubt("Cells", f"{told}: {advice}")]


def _size(median_um: float) -> list[Doubt]:
    low, high = PLAUSIBLE_UM
    if np.isnan(median_um) or low <= median_um <= high:
        return []
    told = f"median nuclear diameter {median_um:.1f} µm, expected {low:g} to {high:g}: the resolution may be wrong"
    return [Doubt("Nuclear size", f"{told} (`{CHECK_MPP}` estimates it, --mpp sets it)")]


def _probability(mean: float) -> list[Doubt]:
    if np.isnan(mean) or mean >= LEAST_PROBABILITY:
        return []
    told = f"mean probability of the cells is {mean:.2f}, expected over {LEAST_PROBABILITY:g}: look at the overlay"
    return [Doubt("Certainty", f"{told}, check the resolution (`{CHECK_MPP}`), try --stain normalised, or fit a model")]


def _oversize(found: Totals) -> list[Doubt]:
    if found.oversize <= MOST_OVERSIZE * found.cells:
        return []
    told = f"{found.oversize / found.cells:.1%} of the cells were cut out of objects larger than any cell (`oversize`)"
    return [Doubt("Oversize objects", f"{told}: blur, keratin or folds; --drop-oversize leaves them out")]
