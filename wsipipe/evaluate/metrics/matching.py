"""Which found nucleus lies over which true one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MATCH_IOU = 0.5
"""Two nuclei match when their IoU exceeds this; above one half no nucleus can have two partners."""
Labels = NDArray[np.int32]


def scored(truth: Labels, found: Labels) -> tuple[Labels, Labels]:
    """Return both label maps numbered without gaps, and 0 where *truth* is not annotated (negative).

    A found cell with more than half of its pixels there is dropped, another one cut.
    """
    known = truth >= 0
    if not known.all():
        inside, whole = np.bincount(found[known], minlength=1), np.bincount(found.ravel(), minlength=1)
        kept = 2 * np.pad(inside, (0, len(whole) - len(inside))) >= whole
        truth, found = np.maximum(truth, 0), np.where(known & kept[found], found, 0)
    return consecutive(truth), consecutive(found)


class Overlaps(NamedTuple):
    """Pairs of a true and a found nucleus that share pixels, by labels; and the areas by label, 0 the background."""

    truth: NDArray[np.int64]
    found: NDArray[np.int64]
    both: NDArray[np.int64]
    union: NDArray[np.int64]
    iou: NDArray[np.float64]
    truth_area: NDArray[np.int64]
    found_area: NDArray[np.int64]


def overlaps(truth: Labels, found: Labels) -> Overlaps:
    """Return all overlapping pairs of two label maps that are numbered without gaps."""
    area_t, area_f = np.bincount(truth.ravel(), minlength=1), np.bincount(found.ravel(), minlength=1)
    both = (truth > 0) & (found > 0)
    keys, shared = np.unique(truth[both].astype(np.int64) * len(area_f) + found[both], return_counts=True)
    t, f = np.divmod(keys, len(area_f))
    union = area_t[t] + area_f[f] - shared
    return Overlaps(t, f, shared, union, shared / union, area_t, area_f)


def consecutive(labels: NDArray[Any]) -> Labels:
    """Return *labels* (none negative) renumbered 1..n in the order of their values, 0 left 0."""
    if labels.size and int(labels.max()) < 1 << 24:
        present = np.bincount(labels.ravel()) > 0
        present[0] = False
        numbered: Labels = (np.cumsum(present, dtype=np.int32) * present)[labels]
        return numbered
    values, inverse = np.unique(labels, return_inverse=True)
    shifted: Labels = (inverse.reshape(labels.shape) + (values[:1] != 0).sum()).astype(np.int32)
    return shifted
