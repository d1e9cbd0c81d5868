"""Which cells to ask for next: those that a classifier is least certain of, no two of them alike."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.cluster.vq import kmeans2

from wsipipe.analysis.classify.model import Floats, Ints, location, standard

POOL = 10
"""Cells asked for are chosen among so many times their number of the least certain."""
SEED = 0


def doubt(probabilities: Floats) -> Floats:
    """Return the doubt (n,) about cells with the *probabilities* (n, k): 1 where two classes are as likely, 0 for none.

    It is 1 less the margin between the two likeliest classes (Scheffer et al. 2001).
    """
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(1 - (two[:, 1] - two[:, 0]), np.float64)


def questions(doubts: Floats, x: Floats, count: int) -> Ints:
    """Return up to *count* rows to ask for, the most doubtful first.

    Of the :data:`POOL` times as many most doubtful ones, those that lie farthest from each other in their standardised
    measurements: many doubtful cells are doubtful for one reason.

    Parameters
    ----------
    doubts : float64 (n,)
    x : float64 (n, d)
        Measurements; NaN counts as average.
    count : int
    """
    order = np.argsort(-doubts, kind="stable")[: POOL * count]
    if len(order) <= count:
        return order.astype(np.int64)
    z = standard(x[order], *location(x))
    chosen = [0]
    nearest = np.linalg.norm(z - z[0], axis=1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(z - z[chosen[-1]], axis=1))
    return np.asarray(order[np.unique(chosen)], np.int64)


def first_questions(x: Floats, count: int) -> Ints:
    """Return up to *count* rows of *x* (n, d) to begin with, when there is no classifier yet: one of each kind.

    Those nearest to the centres of *count* clusters, the largest cluster first. Where no more than *count* rows differ,
    one of each that does, the most frequent first.
    """
    if len(x) <= count:
        return np.arange(len(x), dtype=np.int64)
    z = standard(x, *location(x))
    _, first, often = np.unique(z, axis=0, return_index=True, return_counts=True)
    if len(first) <= count:
        return np.asarray(first[np.lexsort((first, -often))], np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a cluster that ends empty asks for nothing
        centres, member = kmeans2(z, count, minit="++", seed=SEED, missing="warn")
    chosen = []
    for k in np.argsort(-np.bincount(member, minlength=count), kind="stable").tolist():
        rows = np.flatnonzero(member == k)
        if len(rows):
            chosen.append(int(rows[np.linalg.norm(z[rows] - centres[k], axis=1).argmin()]))
    return np.array(chosen, np.int64)
