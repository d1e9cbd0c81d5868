"""Scores of nuclei as points, and of their types, as HoVer-Net defines them (Graham et al. 2019, section IV.C).

A found nucleus and a true one are a pair when the assignment of least total distance between their centroids pairs
them and they lie within :data:`REACH_UM`. F_d is the F1 of the pairs; F_c of a type counts as right the pairs whose
nuclei are both of it, and weighs a pair of two types twice as much as an unpaired nucleus.

HoVer-Net's code assigns over all distances and drops the distant pairs afterwards (``far``); to assign only what lies
within reach (``near``) never finds fewer pairs and is the fairer figure. Both are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from wsipipe.evaluate.metrics.cells import Interval, interval, resampling
from wsipipe.evaluate.metrics.matching import Labels, scored
from wsipipe.settings import EvaluateSettings

REACH_UM = 3.0
"""Largest distance of a pair: 12 px at 0.25 µm/px."""
WAYS = ("near", "far")
Table = NDArray[np.int64]
Tables = NDArray[np.int64] | NDArray[np.float64]


class DetectionSummary(NamedTuple):
    """Scores of nuclei as points, pooled over the images, under each of :data:`WAYS`.

    Attributes
    ----------
    f_d : dict of way to Interval
    f_c : dict of type to dict of way to Interval
    """

    f_d: dict[str, Interval]
    f_c: dict[str, dict[str, Interval]]


def detections(
    truth: Labels,
    truth_types: Mapping[int, str],
    found: Labels,
    found_types: Mapping[int, str],
    names: Sequence[str],
    mpp: float,
    way: str = "near",
) -> Table:
    """Return how many nuclei of each true kind (rows) are paired with which found kind (columns).

    Parameters
    ----------
    truth, found : int32 (H, W)
        Label maps; *truth* is negative where nobody annotated.
    truth_types, found_types : mapping of label to type
    names : sequence of str
        The T types that count.
    mpp : float
        Resolution of the maps in µm/px.
    way : {'near', 'far'}
        What the assignment looks at: pairs within reach, or all.

    Returns
    -------
    int64 (T + 2, T + 2)
        In the order of *names*, then nuclei of no such type, then unpaired ones (the corner is 0).
    """
    whole = truth, found
    truth, found = scored(truth, found)
    t_xy, t_kind = _points(truth, whole[0], truth_types, names)
    f_xy, f_kind = _points(found, whole[1], found_types, names)
    t, f = _pairs(t_xy * mpp, f_xy * mpp, way)
    last = len(names) + 1
    table = np.zeros((last + 1, last + 1), np.int64)
    np.add.at(table, (t_kind[t], f_kind[f]), 1)
    np.add.at(table[:, last], np.delete(t_kind, t), 1)
    np.add.at(table[last], np.delete(f_kind, f), 1)
    return table


def _points(
    labels: Labels, before: Labels, types: Mapping[int, str], names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return centroids (n, 2) in px and kinds (n,) of the nuclei of *labels*, which is *before* renumbered."""
    ys, xs = np.nonzero(labels)
    ids = labels[ys, xs]
    count = int(ids.max(initial=0))
    area = np.bincount(ids, minlength=count + 1)[1:, None]
    sums = np.stack([np.bincount(ids, along, count + 1) for along in (xs, ys)], 1)[1:]
    old = np.zeros(count + 1, np.int64)
    old[ids] = before[ys, xs]
    number = {name: k for k, name in enumerate(names)}
    return sums / area, np.array([number.get(types.get(int(k), ""), len(names)) for k in old[1:]], np.int64)


def _pairs(truth: NDArray[np.float64], found: NDArray[np.float64], way: str) -> tuple[Table, Table]:
    """Return the indices of paired points (n, 2) in µm."""
    distances = cdist(truth, found)
    cost = distances if way == "far" else np.where(distances <= REACH_UM, distances, 1e6)
    t, f = linear_sum_assignment(cost)
    near = distances[t, f] <= REACH_UM
    return t[near], f[near]


def f_detection(table: Tables) -> NDArray[np.float64]:
    """Return F_d of tables (..., T + 2, T + 2) of :func:`detections`; 0 where there is no nucleus."""
    right = table[..., :-1, :-1].sum((-1, -2))
    wrong = table[..., -1, :].sum(-1) + table[..., :, -1].sum(-1)
    return _ratio(2 * right, 2 * right + wrong)


def f_type(table: Tables, number: int) -> NDArray[np.float64]:
    """Return F_c of the type at *number*, with HoVer-Net's weights 2, 2, 1, 1.

    A found nucleus over a true one of no known type is neither right nor wrong.
    """
    named = table[..., :-2, :]
    right = table[..., number, number]
    taken, lost = named[..., number].sum(-1) - right, table[..., number, :-1].sum(-1) - right
    alone, missed = table[..., -1, number], table[..., number, -1]
    return _ratio(2 * right, 2 * right + 2 * taken + 2 * lost + alone + missed)


def _ratio(part: Tables, whole: Tables) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)
    return ratio


def summarise_detections(
    tables: Mapping[str, Sequence[Table]],
    names: Sequence[str],
    resamples: int = EvaluateSettings.resamples,
    seed: int = 0,
) -> DetectionSummary:
    """Return F_d and F_c pooled over images, with intervals from the resamples that :func:`.cells.summarise` takes.

    Parameters
    ----------
    tables : mapping of way to sequence of int64 (T + 2, T + 2)
        What :func:`detections` gives for each image.
    names : sequence of str
        The T types.
    """
    f_d: dict[str, Interval] = {}
    f_c: dict[str, dict[str, Interval]] = {name: {} for name in names}
    for way, each in tables.items():
        drawn = resampling(len(each), resamples, seed)
        again, pooled = np.tensordot(drawn, np.stack(each), 1), np.sum(each, 0)
        f_d[way] = interval(float(f_detection(pooled)), f_detection(again))
        for k, name in enumerate(names):
            f_c[name][way] = interval(float(f_type(pooled, k)), f_type(again, k))
    return DetectionSummary(f_d, f_c)
