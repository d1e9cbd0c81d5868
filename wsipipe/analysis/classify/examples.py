"""Cells whose class somebody gave, and what a classifier learns from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wsipipe._version import __version__
from wsipipe.analysis.classify.model import Classifier, Floats, Ints, fit
from wsipipe.analysis.classify.scores import Scores, cross_validate, regions
from wsipipe.settings import ClassifySettings

MOST_KEPT = 5000
"""More labelled cells than these do not go into the file of a classifier."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled cells of any number of slides.

    Attributes
    ----------
    columns : tuple of str
        d measurements.
    x : float64 (n, d)
    kinds : tuple of str
        Class of each of the n cells.
    slides, cells : tuple of str
        Fingerprint of each one's slide, and its identity.
    xy_um : float64 (n, 2)
    """

    columns: tuple[str, ...]
    x: Floats
    kinds: tuple[str, ...]
    slides: tuple[str, ...]
    cells: tuple[str, ...]
    xy_um: Floats

    @classmethod
    def none(cls, columns: Sequence[str]) -> Examples:
        """Return no examples, with these measurements."""
        return cls(tuple(columns), np.zeros((0, len(columns))), (), (), (), np.zeros((0, 2)))

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that cells have, sorted."""
        return tuple(sorted(set(self.kinds)))

    @property
    def counts(self) -> dict[str, int]:
        """Cells of each class."""
        return {name: self.kinds.count(name) for name in self.classes}

    def joined(self, other: Examples) -> Examples:
        """Return these and the *other* ones; of a cell that is in both, what the other says of it."""
        again = set(zip(other.slides, other.cells, strict=True))
        own = self.taken([i for i, key in enumerate(zip(self.slides, self.cells, strict=True)) if key not in again])
        x, xy = np.concatenate([own.x, other.x]), np.concatenate([own.xy_um, other.xy_um])
        return Examples(
            self.columns, x, own.kinds + other.kinds, own.slides + other.slides, own.cells + other.cells, xy
        )

    def taken(self, rows: Sequence[int]) -> Examples:
        """Return those in *rows*."""
        kinds, slides, cells = (tuple(part[i] for i in rows) for part in (self.kinds, self.slides, self.cells))
        return Examples(self.columns, self.x[list(rows)], kinds, slides, cells, self.xy_um[list(rows)])

    def ordered(self) -> Examples:
        """Return the same by slide and identity, so that nothing depends on the order they were labelled in."""
        return self.taken(sorted(range(len(self)), key=lambda i: (self.slides[i], self.cells[i])))

    def groups(self, reach_um: float) -> tuple[Ints, str]:
        """Return what each cell is left out with (n,), and what that is: its slide, or of one slide a part."""
        names, slide = np.unique(np.array(self.slides, str), return_inverse=True)
        if len(names) > 1:
            return slide.ravel().astype(np.int64), "slides"
        return regions(self.xy_um, reach_um)

    def as_dict(self) -> dict[str, Any]:
        """Return what :meth:`of_dict` reads; {} of more than :data:`MOST_KEPT`."""
        if len(self) > MOST_KEPT:
            return {}
        slides = sorted(set(self.slides))
        rows = [
            [slides.index(slide), cell, kind, [_short(v, 1) for v in xy], [_short(v) for v in values]]
            for slide, cell, kind, xy, values in zip(self.slides, self.cells, self.kinds, self.xy_um, self.x)
        ]
        return {"slides": slides, "cells": rows}

    @classmethod
    def of_dict(cls, columns: Sequence[str], told: Mapping[str, Any]) -> Examples:
        """Return the examples that :meth:`as_dict` told of.

        Raises
        ------
        ValueError, LookupError, TypeError, AttributeError
            When *told* is something else.
        """
        rows = told.get("cells") or []
        if not rows:
            return cls.none(columns)
        slide, cells, kinds, xy, x = zip(*rows)
        values = np.array([[np.nan if v is None else np.float32(v) for v in row] for row in x], np.float64)
        if values.shape != (len(rows), len(columns)):
            raise ValueError("its labelled cells do not fit its columns")
        slides = tuple(str(told["slides"][k]) for k in slide)
        return cls(tuple(columns), values, tuple(map(str, kinds)), slides, tuple(map(str, cells)), np.array(xy, float))


def learn(
    examples: Examples,
    settings: ClassifySettings,
    colours: Mapping[str, tuple[int, int, int]],
    measured: Mapping[str, Any] | None = None,
) -> tuple[Classifier, Scores | None]:
    """Return the classifier of *examples*, and its scores on cells left out by whole slides (or parts of one).

    Parameters
    ----------
    examples : Examples
    settings : ClassifySettings
    colours : mapping
        Of classes that have one.
    measured : mapping, optional
        How the cells were measured anew; see ``measured`` in the metadata of a cells file.

    Raises
    ------
    SettingsError
        When there are too few.
    """
    examples, classes = examples.ordered(), examples.classes
    y = np.array([classes.index(kind) for kind in examples.kinds], np.int64)
    classifier = fit(examples.x, y, examples.columns, classes, settings.l2)
    groups, kind = examples.groups(settings.region_um)
    scores = cross_validate(examples.x, y, groups, classes, settings.l2, settings.folds, kind)
    told = scores and {
        "confusion": scores.confusion,
        "balanced_accuracy": round(scores.balanced_accuracy, 4),
        "folds": scores.folds,
        "groups": f"{scores.regions} {scores.kind}",
    }
    about = {"labelled": examples.counts, "l2": settings.l2, "cross_validation": told, "version": __version__}
    if measured:
        about["measured"] = dict(measured)
    own = {name: colours[name] for name in classes if name in colours}
    return replace(classifier, colours=own, about=about, examples=examples.as_dict()), scores


def _short(value: float, decimals: int | None = None) -> float | None:
    """Return a number as JSON holds it: with the digits that a 32-bit one has; None where it is none."""
    if not np.isfinite(value):
        return None
    return float(str(np.float32(value))) if decimals is None else round(float(value), decimals)
