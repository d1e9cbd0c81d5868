"""How nuclei of each size are found: additive counts by diameter, and scores from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from wsipipe.evaluate.metrics.matching import MATCH_IOU, Labels, overlaps, scored

EDGES_UM = (0.0, 4.0, 5.5, 7.0, 9.0, 12.0, math.inf)
"""Diameters of circles as large as the nuclei; a class runs from one to below the next."""


def size_classes() -> tuple[str, ...]:
    """Return the names of the classes between :data:`EDGES_UM`."""
    inner = [f"{low:g}–{high:g}" for low, high in zip(EDGES_UM[1:-2], EDGES_UM[2:-1], strict=True)]
    return f"< {EDGES_UM[1]:g}", *inner, f"≥ {EDGES_UM[-2]:g}"


@dataclass(frozen=True, eq=False)
class SizeCounts:
    """What scores by size follow from; additive over images. Each field is float64 (n,), one value per class of size.

    Attributes
    ----------
    truth, matched, iou
        True nuclei of the class, those matched by a found one (IoU > 0.5), and the sum of their IoU.
    found, right
        Found nuclei of the class (by their own size), and those that match a true one.
    """

    truth: NDArray[np.float64]
    matched: NDArray[np.float64]
    iou: NDArray[np.float64]
    found: NDArray[np.float64]
    right: NDArray[np.float64]

    def __add__(self, other: SizeCounts) -> SizeCounts:
        return SizeCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of the true nuclei of each class that are matched; NaN where there are none."""
        return _share(self.matched, self.truth)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of the found nuclei of each class that match; NaN where there are none."""
        return _share(self.right, self.found)

    @property
    def quality(self) -> NDArray[np.float64]:
        """Mean IoU of the matched true nuclei of each class; NaN where there are none."""
        return _share(self.iou, self.matched)


def count_sizes(truth: Labels, found: Labels, mpp: float) -> SizeCounts:
    """Return the counts of one image.

    Parameters
    ----------
    truth, found : int (H, W)
        Label maps as :func:`wsipipe.evaluate.metrics.count` takes them.
    mpp : float
        µm per px of both.
    """
    pairs = overlaps(*scored(truth, found))
    good = pairs.iou > MATCH_IOU
    of_truth, of_found = _classes(pairs.truth_area, mpp), _classes(pairs.found_area, mpp)
    n = len(EDGES_UM) - 1

    def tally(classes: NDArray[np.intp], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        return np.bincount(classes, weights, n).astype(np.float64)

    hit_truth, hit_found = of_truth[pairs.truth[good] - 1], of_found[pairs.found[good] - 1]
    iou = tally(hit_truth, pairs.iou[good])
    return SizeCounts(tally(of_truth), tally(hit_truth), iou, tally(of_found), tally(hit_found))


def _classes(areas: NDArray[np.int64], mpp: float) -> NDArray[np.intp]:
    """Return the class of each nucleus (the background, at 0, left out)."""
    return np.searchsorted(EDGES_UM[1:-1], 2 * np.sqrt(areas[1:] / np.pi) * mpp, side="right")


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return shares
