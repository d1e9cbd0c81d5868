"""Scores of predicted cells against annotated ones: counts that add up over images, and every score from them.

:func:`count` reduces one image to whole numbers; sums of them are the counts of a set. :func:`scores` turns counts into
scores: of one image for a mean over images, of a set's sum for a pooled score. Nothing here knows of models or files.

- ``dice``, ``precision``, ``recall``, ``iou``: of nucleus pixels;
- ``mDice``, ``mPrecision``, ``mRecall``, ``mF1`` (equals mDice), ``mIoU``: mean over nucleus and background;
- ``pixel_accuracy``, ``mean_accuracy``, ``FWIoU`` (IoU weighted by a class's pixels): of the same two classes;
- ``BF1``: F1 of boundary pixels within a tolerance;
- ``DQ`` (F1@0.5), ``object_precision``, ``object_recall``: of nuclei, matched when IoU > 0.5, so that pairs are unique;
- ``SQ``: mean IoU of the matched pairs; ``PQ`` = DQ * SQ;
- ``AJI``: aggregated Jaccard index, every true nucleus with the found one of highest IoU (Kumar 2017);

0 / 0 is 0: an image without true and without found nuclei lowers a mean over images, and leaves pooled scores alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsipipe.errors import DatasetError
from wsipipe.evaluate.metrics.matching import MATCH_IOU, Labels, Overlaps, overlaps, scored
from wsipipe.settings import EvaluateSettings

Values = Any
"""A float, or float64 (n,) with one value per image or resample."""


@dataclass(frozen=True)
class Counts:
    """What scores follow from; additive over images. Each field is a number or a float64 array (n,).

    Attributes
    ----------
    pixels, truth_px, found_px, both_px
        Pixels of the image; nucleus pixels in truth, in the prediction, in both.
    truth, found, matched
        Nuclei in truth, in the prediction, and pairs with IoU above 0.5.
    matched_iou
        Sum of the pairs' IoU.
    aji_both, aji_either
        Intersection and union of the aggregated Jaccard index.
    truth_edge, truth_edge_near, found_edge, found_edge_near
        Boundary pixels in truth and those near a boundary of the prediction, and the other way round.
    """

    pixels: Values = 0
    truth_px: Values = 0
    found_px: Values = 0
    both_px: Values = 0
    truth: Values = 0
    found: Values = 0
    matched: Values = 0
    matched_iou: Values = 0.0
    aji_both: Values = 0
    aji_either: Values = 0
    truth_edge: Values = 0
    truth_edge_near: Values = 0
    found_edge: Values = 0
    found_edge_near: Values = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))


def count(truth: Labels, found: Labels, tolerance: float | None = EvaluateSettings.tolerance_px) -> Counts:
    """Return the counts of one image.

    Parameters
    ----------
    truth, found : int (H, W)
        Label maps; 0 is background, other values need not be consecutive; truth is -1 where nobody annotated.
    tolerance : float or None
        In px, for boundaries; None leaves them out (much faster).

    Raises
    ------
    DatasetError
        When the two differ in size.
    """
    if truth.shape != found.shape:
        raise DatasetError(f"truth is {truth.shape} and the prediction {found.shape}; expected label maps of one size")
    pixels = int((truth >= 0).sum())
    truth, found = scored(truth, found)
    pairs = overlaps(truth, found)
    good, best = pairs.iou > MATCH_IOU, _best_partners(pairs)
    alone_t = pairs.truth_area[1:].sum() - pairs.truth_area[pairs.truth[best]].sum()
    alone_f = pairs.found_area[1:].sum() - pairs.found_area[np.unique(pairs.found[best])].sum()
    return Counts(
        pixels=pixels,
        truth_px=int(pairs.truth_area[1:].sum()),
        found_px=int(pairs.found_area[1:].sum()),
        both_px=int(pairs.both.sum()),
        truth=len(pairs.truth_area) - 1,
        found=len(pairs.found_area) - 1,
        matched=int(good.sum()),
        matched_iou=float(pairs.iou[good].sum()),
        aji_both=int(pairs.both[best].sum()),
        aji_either=int(pairs.union[best].sum() + alone_t + alone_f),
        **({} if tolerance is None else _count_edges(truth, found, tolerance)),
    )


def _best_partners(pairs: Overlaps) -> NDArray[np.intp]:
    """Return for each true nucleus that is touched the pair of highest IoU (of equals the lowest label)."""
    order = np.lexsort((-pairs.iou, pairs.truth))
    _, first = np.unique(pairs.truth[order], return_index=True)
    return order[first]


def boundary(labels: Labels) -> NDArray[np.bool_]:
    """Return the nucleus pixels with a 4-neighbour of another label; the picture's edge is no boundary."""
    edge = np.zeros(labels.shape, np.bool_)
    for a, b in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = labels[a] != labels[b]
        edge[a] |= differs
        edge[b] |= differs
    return edge & (labels > 0)


def _count_edges(truth: Labels, found: Labels, tolerance: float) -> dict[str, int]:
    edge_t, edge_f = boundary(truth), boundary(found)
    return {
        "truth_edge": int(edge_t.sum()),
        "truth_edge_near": _near(edge_t, edge_f, tolerance),
        "found_edge": int(edge_f.sum()),
        "found_edge_near": _near(edge_f, edge_t, tolerance),
    }


def _near(points: NDArray[np.bool_], target: NDArray[np.bool_], tolerance: float) -> int:
    """Return how many *points* lie within *tolerance* px of *target*."""
    if not target.any():
        return 0
    return int((ndimage.distance_transform_edt(~target)[points] <= tolerance).sum())


def detection_quality(c: Counts) -> Values:
    """Return DQ: the F1 of nuclei that match."""
    return _ratio(2 * c.matched, c.truth + c.found)


def segmentation_quality(c: Counts) -> Values:
    """Return SQ: the mean IoU of nuclei that match."""
    return _ratio(c.matched_iou, c.matched)


def boundary_f1(c: Counts) -> Values:
    """Return the F1 of boundaries, within a tolerance."""
    precision, recall = _ratio(c.found_edge_near, c.found_edge), _ratio(c.truth_edge_near, c.truth_edge)
    return _ratio(2 * precision * recall, precision + recall)


def weighted_iou(c: Counts) -> Values:
    """Return the IoU of nucleus and background, weighted by how much of each there is."""
    nucleus, other = _both_classes(c)
    return _ratio(c.truth_px * nucleus["iou"] + (c.pixels - c.truth_px) * other["iou"], c.pixels)


class Metric(NamedTuple):
    """One score: its title in tables, and what it is of the counts of an image, of a sum of images, or of a stack."""

    title: str
    of: Callable[[Counts], Values]


METRICS = {
    "pixel_accuracy": Metric("pixel accuracy", lambda c: _ratio(c.both_px + _background(c), c.pixels)),
    "mean_accuracy": Metric("mean accuracy", lambda c: sum(part["recall"] for part in _both_classes(c)) / 2),
    "FWIoU": Metric("FWIoU", weighted_iou),
    "BF1": Metric("BF1", boundary_f1),
    "object_precision": Metric("nuclei: precision", lambda c: _ratio(c.matched, c.found)),
    "object_recall": Metric("nuclei: recall", lambda c: _ratio(c.matched, c.truth)),
    "AJI": Metric("AJI", lambda c: _ratio(c.aji_both, c.aji_either)),
    "DQ": Metric("DQ (F1@0.5)", detection_quality),
    "SQ": Metric("SQ", segmentation_quality),
    "PQ": Metric("PQ", lambda c: detection_quality(c) * segmentation_quality(c)),
}
"""Scores that are one number, by name. A further one is a function of :class:`Counts` in a file, and a line here."""


def scores(c: Counts) -> dict[str, Values]:
    """Return every score of *c*: floats of one image or a sum, arrays (n,) of stacked counts."""
    nucleus, other = _both_classes(c)
    mean = {name: (nucleus[name] + other[name]) / 2 for name in nucleus}
    return {
        **nucleus,
        "mDice": mean["dice"],
        "mPrecision": mean["precision"],
        "mRecall": mean["recall"],
        "mF1": mean["dice"],
        "mIoU": mean["iou"],
        **{name: metric.of(c) for name, metric in METRICS.items()},
    }


def _background(c: Counts) -> Values:
    return c.pixels - c.truth_px - c.found_px + c.both_px


def _both_classes(c: Counts) -> tuple[dict[str, Values], dict[str, Values]]:
    nucleus = _of_class(c.both_px, c.truth_px, c.found_px)
    return nucleus, _of_class(_background(c), c.pixels - c.truth_px, c.pixels - c.found_px)


def _of_class(both: Values, truth: Values, found: Values) -> dict[str, Values]:
    return {
        "dice": _ratio(2 * both, truth + found),
        "precision": _ratio(both, found),
        "recall": _ratio(both, truth),
        "iou": _ratio(both, truth + found - both),
    }


def _ratio(a: Values, b: Values) -> Values:
    """Return a / b, 0 where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    result = np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)
    return result if result.ndim else float(result)


def stack(counts: Sequence[Counts]) -> Counts:
    """Return the counts of several images as one object of float64 arrays (n,)."""
    columns = np.array([_values(c) for c in counts], np.float64).T
    return Counts(*(columns if len(counts) else np.zeros((len(fields(Counts)), 0))))


def pool(counts: Sequence[Counts]) -> Counts:
    """Return the sum of the counts of several images."""
    return sum(counts, Counts())


class Interval(NamedTuple):
    """A score with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Summary(NamedTuple):
    """Scores of a set: ``pooled`` over all its pixels and nuclei, and ``mean`` over its images."""

    pooled: dict[str, Interval]
    mean: dict[str, Interval]


def summarise(counts: Sequence[Counts], resamples: int = EvaluateSettings.resamples, seed: int = 0) -> Summary:
    """Return pooled scores and means over images, with intervals from resampling the images with replacement.

    Parameters
    ----------
    counts : sequence of Counts
        One per image; at least one.
    resamples : int
        The interval holds the central 95 % of the scores of that many resamples.
    seed : int
    """
    if not counts:
        raise DatasetError("no image to score; expected at least one")
    n = len(counts)
    each = stack(counts)
    drawn = resampling(n, resamples, seed)
    resampled = scores(weighted(each, drawn))
    pooled = {name: interval(value, resampled[name]) for name, value in scores(pool(counts)).items()}
    per_image = scores(each)
    mean = {name: interval(value.mean(), drawn @ value / n) for name, value in per_image.items()}
    return Summary(pooled, mean)


def resampling(n: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """Return how often each of *n* images is drawn in each resample with replacement, float64 (resamples, n)."""
    rng = np.random.default_rng(seed)
    return np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(resamples)]).astype(np.float64)


def weighted(each: Counts, drawn: NDArray[np.float64]) -> Counts:
    """Return the sums of stacked counts over each resample of :func:`resampling`."""
    return Counts(*(drawn @ column for column in _values(each)))


def interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    """Return *value* with the central 95 % of what it is in the resamples."""
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(float(value), float(low), float(high))


def _values(c: Counts) -> list[Values]:
    return [getattr(c, field.name) for field in fields(c)]
