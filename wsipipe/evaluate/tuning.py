"""The thresholds that suit a model best, found on validation images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wsipipe.evaluate.image import ImageMaps
from wsipipe.evaluate.metrics import Counts, Values, count, pool, scores
from wsipipe.models.checkpoint import Rules

THRESHOLDS = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
MARKER_THRESHOLDS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)
MIN_AREAS_UM2 = (4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0)
MIN_PROBABILITIES = (0.0, 0.6, 0.7, 0.75, 0.8)

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Trial:
    """One choice of rules and its scores, pooled over the images."""

    rules: Rules
    scores: dict[str, Values]


def tune(
    pairs: Sequence[tuple[ImageMaps, Labels]],
    rules: Rules,
    thresholds: Sequence[float] = THRESHOLDS,
    marker_thresholds: Sequence[float] = MARKER_THRESHOLDS,
    min_areas_um2: Sequence[float] = MIN_AREAS_UM2,
    min_probabilities: Sequence[float] = MIN_PROBABILITIES,
    report: Callable[[], None] = lambda: None,
) -> list[Trial]:
    """Return every combination of rules with its scores, the highest pooled PQ first; no forward pass is made.

    Parameters
    ----------
    pairs : sequence of (ImageMaps, int32 (H, W))
        Maps of the validation images, and their annotated label maps.
    rules : Rules
        Gives what is not varied. Of equal PQ the rules nearest to these come first.
    report : callable
        Called after each pair of thresholds.
    """
    trials = []
    marked = all("marker" in maps.names for maps, _ in pairs)
    least = list(itertools.product(min_areas_um2, min_probabilities))
    for threshold, marker in itertools.product(thresholds, marker_thresholds if marked else [rules.marker_threshold]):
        base = replace(rules, threshold=threshold, marker_threshold=marker, min_area_um2=0.0, min_probability=0.0)
        pooled = [pool(column) for column in zip(*(_without(m, t, base, least) for m, t in pairs), strict=True)]
        for (area, probability), counts in zip(least, pooled, strict=True):
            trials.append(Trial(replace(base, min_area_um2=area, min_probability=probability), scores(counts)))
        report()
    return sorted(trials, key=lambda trial: (-trial.scores["PQ"], _distance(trial.rules, rules)))


def _without(maps: ImageMaps, truth: Labels, rules: Rules, least: Sequence[tuple[float, float]]) -> list[Counts]:
    """Return the counts of one image for each (area, probability); found once, since dropping a cell moves no other."""
    cells, labels = maps.cells_and_labels(rules)
    out = []
    for area, probability in least:
        keep = (cells.sums[:, 0] >= area / maps.grid.um2_per_px) & (cells.probability >= probability)
        out.append(count(truth, np.where(np.concatenate([[False], keep])[labels], labels, 0), tolerance=None))
    return out


def _distance(a: Rules, b: Rules) -> tuple[float, ...]:
    return tuple(abs(x - y) for x, y in zip(astuple(a), astuple(b), strict=True))
