"""A classifier of cells by their measurements: multinomial logistic regression, small enough to be a JSON file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from wsipipe.artifacts import digest, from_json, write_json
from wsipipe.errors import ModelNotFound, NotAModel, SettingsError, in_words
from wsipipe.plain import text_of

FORMAT = 1
LEAST = 2
"""Labelled cells of a class without which nothing can be fitted."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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


@dataclass(frozen=True, eq=False)
class Classifier:
    """Softmax of a linear function of standardised measurements.

    Attributes
    ----------
    columns : tuple of str
        d measurements.
    classes : tuple of str
        k classes.
    centre, spread : (d,)
        Of the measurements among the labelled cells.
    weights : (d + 1, k)
        The last row is the offset.
    colours : mapping
        (r, g, b) of classes that have one.
    about : mapping
        What it was fitted on, and its scores.
    """

    columns: tuple[str, ...]
    classes: tuple[str, ...]
    centre: Floats
    spread: Floats
    weights: Floats
    colours: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(self, x: Floats) -> Floats:
        """Return the probability of each class (n, k) of cells with measurements *x* (n, d); NaN counts as average."""
        return _softmax(_with_one(_standard(x, self.centre, self.spread)) @ self.weights)

    @property
    def digest(self) -> str:
        """SHA-256 of what turns measurements into classes."""
        return digest([self.columns, self.classes, self.weights, self.centre, self.spread])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the classifier as JSON, atomically."""
        write_json(Path(path), {"wsipipe_classifier": FORMAT, **asdict(self), "digest": self.digest})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Classifier:
        """Return the classifier at *path*.

        Raises
        ------
        ModelNotFound, NotAModel
        """
        try:
            found = from_json(text_of(path))
            stated = found.pop("digest", None)
            if found.pop("wsipipe_classifier") != FORMAT:
                raise ValueError("of another version")
            arrays = {name: np.array(found.pop(name), np.float64) for name in ("centre", "spread", "weights")}
            columns, classes = tuple(found.pop("columns")), tuple(found.pop("classes"))
            if arrays["weights"].shape != (len(columns) + 1, len(classes)):
                raise ValueError("weights do not fit columns and classes")
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise ValueError("some of its weights are no finite numbers")
            centre, spread, weights = arrays.values()
            loaded = cls(columns, classes, centre, spread, weights, **found)
            if stated not in (None, loaded.digest):
                raise ValueError("its weights are not those that were saved: copy it again")
            return loaded
        except FileNotFoundError as error:
            raise ModelNotFound(
                f"no classifier at {path}; make one with `wsipipe classify --fit ... --save`"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotAModel(
                f"{path} is not a classifier made by `wsipipe classify --save` ({in_words(error)})"
            ) from error


def fit(x: Floats, y: Ints, columns: Sequence[str], classes: Sequence[str], l2: float) -> Classifier:
    """Return the classifier of cells with measurements *x* (n, d) and classes *y* (n,), each class of equal weight.

    Minimises the mean weighted cross-entropy plus ``l2 / (2 n)`` times the squared weights, by L-BFGS.

    Raises
    ------
    SettingsError
        When there are fewer than two classes, or fewer than two cells of one.
    """
    counts = np.bincount(y, minlength=len(classes))
    if len(classes) < 2 or counts.min() < LEAST:
        told = ", ".join(f"{name}: {count}" for name, count in zip(classes, counts.tolist(), strict=True)) or "none"
        raise SettingsError(f"labelled cells: {told}; expected at least two classes with at least {LEAST} cells each")
    centre, spread = _location(x)
    weights = _fitted(_with_one(_standard(x, centre, spread)), y, len(classes), l2)
    return Classifier(tuple(columns), tuple(classes), centre, spread, weights)


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
            centre, spread = _location(x[~out])
            weights = _fitted(_with_one(_standard(x[~out], centre, spread)), inner.ravel(), len(known), l2)
            guess = known[(_with_one(_standard(x[out], centre, spread)) @ weights).argmax(axis=1)]
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


def _fitted(x: Floats, y: Ints, k: int, l2: float) -> Floats:
    """Return the weights (d, k) that fit *x* (n, d), whose last column is ones, to *y* (n,)."""
    n, d = x.shape
    truth = np.eye(k)[y]
    counts = np.maximum(1, truth.sum(axis=0))
    weight = (n / (k * counts))[y] / n
    penalty = np.full((d, 1), l2 / n)
    penalty[-1] = 1e-9  # the offset is free

    def loss(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(d, k)
        p = _softmax(x @ w)
        value = -(weight * np.log(np.maximum(p[np.arange(n), y], 1e-300))).sum() + 0.5 * (penalty * w * w).sum()
        return float(value), (x.T @ (weight[:, None] * (p - truth)) + penalty * w).ravel()

    result = minimize(loss, np.zeros(d * k), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return np.asarray(result.x, np.float64).reshape(d, k)


def _location(x: Floats) -> tuple[Floats, Floats]:
    """Return mean and spread of each column, of the values that are numbers; 0 and 1 where there are none."""
    known = np.isfinite(x)
    count = np.maximum(1, known.sum(axis=0))
    centre = np.where(known, x, 0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, x - centre, 0) ** 2).sum(axis=0) / count)
    return centre, np.where(spread > 1e-12, spread, 1.0)


def _standard(x: Floats, centre: Floats, spread: Floats) -> Floats:
    return np.asarray(np.where(np.isfinite(x), (x - centre) / spread, 0.0), np.float64)


def _with_one(x: Floats) -> Floats:
    return np.hstack([x, np.ones((len(x), 1))])


def _softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True), np.float64)
