"""Scores of immunohistochemistry: grades by thresholds, positive share, H-score, Allred, and thresholds to propose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsipipe.analysis.derived import NEGATIVE, POSITIVE
from wsipipe.cells.compartments import NUCLEUS
from wsipipe.errors import SettingsError
from wsipipe.settings import ScoreSettings

Floats = NDArray[np.float64]
STEPS = {1: (NEGATIVE, POSITIVE), 3: (NEGATIVE, "1+", "2+", "3+")}
"""Grades by the number of thresholds."""
STRENGTH = {NEGATIVE: 0, "1+": 1, "2+": 2, "3+": 3}
"""How strongly a cell of a grade stained; without steps nobody knows."""
PROPORTIONS = (0.0, 0.01, 0.1, 1 / 3, 2 / 3)
"""Allred: shares of positive cells above which the proportion scores 1 to 5."""
INTENSITIES = (5 / 3, 7 / 3)
"""Allred: mean strengths of the positive cells up to which the intensity scores 1 and 2; above, 3."""


@dataclass(frozen=True)
class Marker:
    """Where a marker lies in the cell, and the thresholds that are customary to begin with."""

    compartment: str
    thresholds: tuple[float, ...]


MARKERS = {
    "ki67": Marker(NUCLEUS, (0.2,)),
    "er": Marker(NUCLEUS, (0.2, 0.4, 0.6)),
    "pr": Marker(NUCLEUS, (0.2, 0.4, 0.6)),
    "p53": Marker(NUCLEUS, (0.2, 0.4, 0.6)),
}
"""Markers by name: a share of positive cells of Ki67, steps of the others. Thresholds are where QuPath's begin."""


def marker_of(settings: ScoreSettings) -> Marker:
    """Return where the marker lies, and its thresholds.

    Raises
    ------
    SettingsError
        When the marker is not known, and nobody says where it lies.
    """
    known = MARKERS.get(settings.marker.lower().replace("-", ""))
    if known is None and settings.compartment == "auto":
        raise SettingsError(
            f"--marker {settings.marker}: not one of {', '.join(MARKERS)}; say where it lies: --compartment nucleus, "
            "cytoplasm or cell"
        )
    compartment = known.compartment if known and settings.compartment == "auto" else settings.compartment
    usual = known.thresholds if known else MARKERS["er"].thresholds
    return Marker(compartment, settings.thresholds or usual)


def grades_of(values: Floats, thresholds: Sequence[float]) -> NDArray[np.object_]:
    """Return how each cell stained (n,), by one threshold or three; "" where *values* (n,) is NaN.

    A value on a threshold is above it, as in QuPath.
    """
    names = np.array(STEPS[len(thresholds)], object)
    grades = names[np.searchsorted(np.asarray(thresholds, np.float64), np.nan_to_num(values), side="right")]
    return np.where(np.isnan(values), "", grades)


def h_score(counts: Sequence[float]) -> float:
    """Return the H-score, 0 to 300, of the numbers of cells 0, 1+, 2+ and 3+; NaN of none."""
    total = float(sum(counts))
    return 100 * sum(k * count for k, count in enumerate(counts)) / total if total else math.nan


def allred(share: float, strength: float) -> tuple[int, int]:
    """Return Allred's scores of proportion (0 to 5) and intensity (0 to 3), whose sum is the Allred score.

    Parameters
    ----------
    share : float
        Positive cells of all that were scored.
    strength : float
        Mean of 1, 2 and 3 over the positive cells.
    """
    proportion = sum(share > limit for limit in PROPORTIONS)
    if not proportion:
        return 0, 0
    slack = 1e-9  # 7/3 is no number of the computer
    return proportion, 1 + sum(strength > limit + slack for limit in INTENSITIES)


# --- thresholds from the slide itself ---------------------------------------------------------------------------------

BINS = 256
LEAST_SHARE, FEWEST_CELLS = 0.005, 50
"""A smaller share of cells is no population of its own; fewer cells show none."""
FAINT = 0.05
"""Density that is added before the logarithm is taken: about that of a negative nucleus."""
LEAST_APART = 3.0
"""Two populations lie apart by at least so many standard deviations of the negative one."""


def suggest(values: Floats, steps: int) -> tuple[float, ...]:
    """Return thresholds that *values*, optical densities of all cells, suggest; () when they show one population.

    The first is Otsu's threshold of the logarithm of the densities (Otsu 1979): positive cells spread widely, and their
    few faint ones are missed without it. The other two cut the positive cells by Otsu's criterion in three.

    Parameters
    ----------
    values : float64 (n,)
        NaN is left out.
    steps : {1, 3}
    """
    known = np.sort(values[np.isfinite(values)])
    if len(known) < FEWEST_CELLS:
        return ()
    first = _otsu(known)
    below, above = known[known < first], known[known >= first]
    if min(len(below), len(above)) < LEAST_SHARE * len(known):
        return ()
    if np.median(above) - below.mean() < LEAST_APART * below.std():
        return ()
    cuts = (first,) if steps == 1 else (first, *_otsu_in_three(above))
    rounded = tuple(round(float(cut), 3) for cut in cuts)
    return rounded if len(set(rounded)) == steps else ()


def _histogram(values: Floats) -> tuple[Floats, Floats]:
    """Return counts and middles of the bins of *values*; the outermost 0.1 % share the last bins."""
    low, high = np.quantile(values, (0.001, 0.999))
    counts, edges = np.histogram(np.clip(values, low, high), BINS, (low, max(high, low + 1e-6)))
    return counts.astype(np.float64), (edges[1:] + edges[:-1]) / 2


def _otsu(values: Floats) -> float:
    """Return the threshold that parts the logarithms of *values* in two, the most apart."""
    counts, middles = _histogram(np.log(FAINT + np.maximum(values, 0)))
    n, x = np.cumsum(counts), np.cumsum(counts * middles)
    between = (x[-1] * n / n[-1] - x) ** 2 / np.maximum(n * (n[-1] - n), 1e-9)
    k = int(np.argmax(between[:-1]))
    return float(np.exp((middles[k] + middles[k + 1]) / 2) - FAINT)


def _otsu_in_three(values: Floats) -> tuple[float, float]:
    """Return the two thresholds that part *values* in three, the most apart."""
    counts, middles = _histogram(values)
    n, x = (np.concatenate([[0.0], np.cumsum(counts * middles**power)]) for power in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.nan_to_num((x[None, :] - x[:, None]) ** 2 / (n[None, :] - n[:, None]))
    i, j = np.triu_indices(BINS, 1)
    i, j = i[i > 0], j[i > 0]
    best = int(np.argmax(between[0, i] + between[i, j] + between[j, BINS]))
    return float((middles[i[best] - 1] + middles[i[best]]) / 2), float((middles[j[best] - 1] + middles[j[best]]) / 2)
