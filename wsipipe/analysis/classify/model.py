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

from wsipipe.artifacts import digest, from_json, write_json
from wsipipe.artifacts.plain import text_of
from wsipipe.errors import ModelNotFound, NotAModel, SettingsError, in_words

FORMAT = 1
LEAST = 2
"""Labelled cells of a class without which nothing can be fitted."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
    examples : mapping
        The labelled cells; see :meth:`wsipipe.analysis.classify.examples.Examples.as_dict`.
    """

    columns: tuple[str, ...]
    classes: tuple[str, ...]
    centre: Floats
    spread: Floats
    weights: Floats
    colours: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    examples: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(self, x: Floats) -> Floats:
        """Return the probability of each class (n, k) of cells with measurements *x* (n, d); NaN counts as average."""
        return softmax(with_one(standard(x, self.centre, self.spread)) @ self.weights)

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
            if not all(isinstance(value, dict) for value in found.values()):
                raise ValueError("what it says of itself is no object")
            if not all(rgb is None or _is_colour(rgb) for rgb in found.get("colours", {}).values()):
                raise ValueError("its colours are not red, green and blue from 0 to 255")
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


def _is_colour(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(n) is int and 0 <= n <= 255 for n in value)


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
    centre, spread = location(x)
    weights = fitted(with_one(standard(x, centre, spread)), y, len(classes), l2)
    return Classifier(tuple(columns), tuple(classes), centre, spread, weights)


def fitted(x: Floats, y: Ints, k: int, l2: float) -> Floats:
    """Return the weights (d, k) that fit *x* (n, d), whose last column is ones, to *y* (n,)."""
    n, d = x.shape
    truth = np.eye(k)[y]
    counts = np.maximum(1, truth.sum(axis=0))
    weight = (n / (k * counts))[y] / n
    penalty = np.full((d, 1), l2 / n)
    penalty[-1] = 1e-9  # the offset is free

    def loss(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(d, k)
        p = softmax(x @ w)
        value = -(weight * np.log(np.maximum(p[np.arange(n), y], 1e-300))).sum() + 0.5 * (penalty * w * w).sum()
        return float(value), (x.T @ (weight[:, None] * (p - truth)) + penalty * w).ravel()

    result = minimize(loss, np.zeros(d * k), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return np.asarray(result.x, np.float64).reshape(d, k)


def location(x: Floats) -> tuple[Floats, Floats]:
    """Return mean and spread of each column, of the values that are numbers; 0 and 1 where there are none."""
    known = np.isfinite(x)
    count = np.maximum(1, known.sum(axis=0))
    centre = np.where(known, x, 0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, x - centre, 0) ** 2).sum(axis=0) / count)
    return centre, np.where(spread > 1e-12, spread, 1.0)


def standard(x: Floats, centre: Floats, spread: Floats) -> Floats:
    """Return *x* (n, d) about *centre* in units of *spread* (d,); what is no number counts as average."""
    return np.asarray(np.where(np.isfinite(x), (x - centre) / spread, 0.0), np.float64)


def with_one(x: Floats) -> Floats:
    """Return *x* (n, d) with a column of ones at the end."""
    return np.hstack([x, np.ones((len(x), 1))])


def softmax(z: Floats) -> Floats:
    """Return the softmax of each row of *z* (n, k)."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True), np.float64)
