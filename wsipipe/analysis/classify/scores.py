"""How good a classifier of cells is, told by cells that lie apart from those it was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from wsipipe.analysis.classify.model import Floats, Ints, fitted, location, standard, with_one


@dataclass(frozen=True)
class Scores:
    """How well left-out cells were classified.

    Attributes
    ----------
    confusion : tuple of tuple of int
        Cells by true class (row) and found class (column).
    folds : int
    regions : int
        Groups of cells that were never split between fitting and scoring.
    kind : str
        What a group is: "slides", "regions" or "squares".
    """

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    folds: int
    regions: int
    kind: str

    @property
    def recall(self) -> Floats:
        """Share of each class that was found (k,)."""
        table = np.array(self.confusion, np.float64)
        return np.asarray(np.diag(table) / np.maximum(1, table.sum(axis=1)))

    @property
    def precision(self) -> Floats:
        """Share of those called a class that are of it (k,)."""
        table = np.array(self.confusion, np.float64)
        return np.asarray(np.diag(table) / np.maximum(1, table.sum(axis=0)))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall; guessing gives 1 / k."""
        return float(self.recall.mean())


def cross_validate(
    x: Floats, y: Ints, groups: Ints, classes: Sequence[str], l2: float, folds: int, kind: str
) -> Scores | None:
    """Return the scores of cells left out by whole *groups* (n,), or None when there are fewer than two groups.

    Classes that a fold's other cells lack are never found in it.
    """
    found = np.unique(groups)
    if len(found) < 2:
        return None
    fold = _folds(groups, min(folds, len(found)))
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for k in range(fold.max() + 1):
        out = fold == k
        known, inner = np.unique(y[~out], return_inverse=True)
        if len(known) < 2:
            guess = np.full(out.sum(), known[0])
        else:
            centre, spread = location(x[~out])
            weights = fitted(with_one(standard(x[~out], centre, spread)), inner.ravel(), len(known), l2)
            guess = known[(with_one(standard(x[out], centre, spread)) @ weights).argmax(axis=1)]
        np.add.at(confusion, (y[out], guess), 1)
    table = tuple(tuple(row) for row in confusion.tolist())
    return Scores(tuple(classes), table, int(fold.max()) + 1, len(found), kind)


def regions(xy_um: Floats, reach_um: float) -> tuple[Ints, str]:
    """Return the region (n,) of each cell, and what a region is.

    Cells within *reach_um* of each other are of one region. Where one region has more than half of the cells, squares
    of that side are taken.
    """
    pairs = cKDTree(xy_um).query_pairs(reach_um, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(xy_um), len(xy_um)))
    count, labels = connected_components(graph, directed=False)
    if count > 1 and 2 * np.bincount(labels).max() <= len(xy_um):
        return labels.astype(np.int64), "regions"
    _, squares = np.unique(np.floor(xy_um / reach_um), axis=0, return_inverse=True)
    return squares.ravel().astype(np.int64), "squares"


def _folds(groups: Ints, count: int) -> Ints:
    """Return the fold (n,) of each cell: groups, the largest first, go where the fewest cells are."""
    names, sizes = np.unique(groups, return_counts=True)
    load, place = np.zeros(count, np.int64), {}
    for i in np.argsort(-sizes, kind="stable").tolist():
        k = int(load.argmin())
        place[int(names[i])] = k
        load[k] += sizes[i]
    return np.array([place[int(g)] for g in groups], np.int64)
