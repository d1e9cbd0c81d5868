"""Labelling cells of several slides: which one is asked for next, what was answered, what was learned from it."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsipipe.analysis.classify import Classifier, Examples, Scores, doubt, first_questions, learn, questions
from wsipipe.analysis.classify.candidates import Candidates
from wsipipe.analysis.classify.model import LEAST
from wsipipe.errors import SettingsError
from wsipipe.formats.colours import Rgb, class_colours
from wsipipe.formats.parquet import metadata
from wsipipe.settings import ClassifySettings

AHEAD = 24
"""Cells that are chosen at a time; a new choice is made after each answer."""
SOME = 5000
"""Candidates among which the first questions are chosen."""
LONGEST = 60
"""Characters of the name of a class."""


class Session:
    """What is known at a moment of the labelling. Safe to share between threads.

    Parameters
    ----------
    candidates : Candidates
    examples : Examples
        Cells that were labelled before.
    classes : sequence of str
        To offer; others may be added.
    settings : ClassifySettings
    save : path
        Where the classifier is kept, anew after every answer.
    colours : mapping, optional
        Of classes that have one.
    measured : mapping, optional
        See :func:`wsipipe.analysis.classify.learn`.
    """

    def __init__(
        self,
        candidates: Candidates,
        examples: Examples,
        classes: Sequence[str],
        settings: ClassifySettings,
        save: Path,
        colours: Mapping[str, Rgb] | None = None,
        measured: Mapping[str, Any] | None = None,
    ) -> None:
        self.candidates, self.settings, self.save = candidates, settings, save
        self.examples = examples
        self.classifier: Classifier | None = None
        self.scores: Scores | None = None
        self._classes = list(dict.fromkeys([*classes, *examples.classes]))
        self._colours, self._measured = dict(colours or {}), measured
        self._turn = threading.RLock()
        self._answers: list[tuple[int, str]] = []
        known = set(examples.cells)
        self._free = np.array([id_ not in known for id_ in candidates.ids], np.bool_)
        self._shares: Counter[int] = Counter()
        self._chosen: list[int] = []
        self._learn()

    # --- what is asked and answered -----------------------------------------------------------------------------------

    @property
    def classes(self) -> dict[str, Rgb]:
        """The classes that are offered, with their colours."""
        return class_colours({name: self._colours.get(name) for name in self._classes})

    def add_class(self, name: str) -> None:
        """Offer a class more.

        Raises
        ------
        SettingsError
            When it has no name, or a very long one.
        """
        name = " ".join(name.split())
        if not name or len(name) > LONGEST or name.endswith("*"):
            raise SettingsError(f"a class needs a name of 1 to {LONGEST} characters that does not end in *")
        with self._turn:
            if name not in self._classes:
                self._classes.append(name)

    def answer(self, cell: int, kind: str) -> None:
        """Note that the candidate *cell* is of the class *kind*; "" passes over it.

        Raises
        ------
        SettingsError
            When there is no such cell or class.
        """
        with self._turn:
            if not 0 <= cell < len(self.candidates) or (kind and kind not in self._classes):
                raise SettingsError(f"cell {cell} cannot be {kind!r}: no such cell, or no such class")
            self._answers.append((cell, kind))
            self._free[cell] = False
            if kind:
                self.examples = self.examples.joined(self.candidates.example(cell, kind))
                self._learn()
            elif cell in self._chosen:
                self._chosen.remove(cell)

    def ask(self, slide: int, identity: str) -> None:
        """Ask next for the cell of that identity on a slide, which somebody has pointed at.

        Raises
        ------
        SettingsError
            When it is not among those that are asked for, or has been labelled.
        """
        with self._turn:
            same = [k for k in self._places.get(identity, ()) if self.candidates.slide[k] == slide]
            if not same:
                raise SettingsError(
                    f"this cell is not among the {len(self.candidates):,} that are asked for, a sample of all; choose "
                    "another one"
                )
            if not self._free[same[0]]:
                raise SettingsError("this cell has a label; undo takes the last one back")
            self._chosen = [same[0], *(k for k in self.ahead(AHEAD) if k != same[0])]

    @functools.cached_property
    def _places(self) -> dict[str, list[int]]:
        """Candidates by their identity."""
        found: dict[str, list[int]] = {}
        for k, identity in enumerate(self.candidates.ids):
            found.setdefault(identity, []).append(k)
        return found

    def undo(self) -> int | None:
        """Take the last answer back, and return its cell; None where there is none."""
        with self._turn:
            if not self._answers:
                return None
            cell, kind = self._answers.pop()
            self._free[cell] = True
            if kind:
                key = self.candidates.example(cell, kind)
                pairs = list(zip(self.examples.slides, self.examples.cells, strict=True))
                self.examples = self.examples.taken(
                    [i for i, pair in enumerate(pairs) if pair != (key.slides[0], key.cells[0])]
                )
                self._learn()
            self._chosen = [cell, *(k for k in self._chosen if k != cell)]
            return cell

    def ahead(self, count: int = 4) -> list[int]:
        """Return the next candidates to ask for."""
        with self._turn:
            if not self._chosen and self._free.any():
                self._choose()
            return self._chosen[:count]

    def probabilities(self, cell: int) -> dict[str, float]:
        """Return the probability of each class of a candidate, as far as anything has been learned."""
        classifier = self.classifier
        if classifier is None:
            return {}
        found = classifier.probabilities(self.candidates.values(np.array([cell])))[0]
        return dict(zip(classifier.classes, map(float, found)))

    # --- what is learned ----------------------------------------------------------------------------------------------

    def _learn(self) -> None:
        """Fit the classifier to all answers, keep it, and choose what to ask for next."""
        counts = self.examples.counts
        if len(counts) >= 2 and min(counts.values()) >= LEAST:
            self.classifier, self.scores = learn(self.examples, self.settings, self.classes, self._measured)
            if self._answers:
                self.classifier.save(self.save)
        else:
            self.classifier, self.scores = None, None
        self._choose()

    def _choose(self) -> None:
        free = np.flatnonzero(self._free)
        if self.classifier is None:
            some = free[np.unique(np.linspace(0, len(free) - 1, min(SOME, len(free))).round().astype(np.int64))]
            done = len(self._answers)
            self._chosen = some[first_questions(self.candidates.values(some), AHEAD + done)][done:].tolist()
            self._chosen = self._chosen or some[:AHEAD].tolist()
            return
        x = self.candidates.values(free)
        found = self.classifier.probabilities(x)
        self._shares = Counter(found.argmax(axis=1).tolist())
        self._chosen = free[questions(doubt(found), x, AHEAD)].tolist()

    # --- what is told -------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what the page shows."""
        with self._turn:
            ahead, candidates = self.ahead(), self.candidates
            cell = ahead[0] if ahead else None
            return {
                "cell": cell,
                "ahead": ahead[1:],
                "slide": candidates.names[candidates.slide[cell]] if cell is not None else "",
                "place": self._place(cell) if cell is not None else None,
                "probabilities": self.probabilities(cell) if cell is not None else {},
                "classes": self._told_classes(),
                "labelled": len(self.examples),
                "slides": len(set(self.examples.slides)),
                "passed": sum(not kind for _, kind in self._answers),
                "undo": bool(self._answers),
                "scores": self._told_scores(),
                "candidates": len(candidates),
                "cells": candidates.total,
                "of": len(candidates.names),
                "saved": self.save.name if self.classifier is not None and self.save.exists() else "",
            }

    @functools.lru_cache(maxsize=AHEAD)  # noqa: B019 a session lives as long as its server
    def _place(self, cell: int) -> dict[str, Any]:
        """Return where a candidate lies: number of its slide, centre and outline in base px, and µm per px."""
        row, number = self.candidates.table(cell), int(self.candidates.slide[cell])
        ring = shapely.get_coordinates(shapely.from_wkb(row["geometry"][0].as_py()))
        return {
            "slide": number,
            "x": row["x"][0].as_py(),
            "y": row["y"][0].as_py(),
            "outline": np.round(ring.astype(np.float64), 2).tolist(),
            "mpp": float(metadata(self.candidates.masters[number])["mpp"][0]),
        }

    def _told_classes(self) -> list[dict[str, Any]]:
        counts, told = self.examples.counts, []
        known = self.classifier.classes if self.classifier is not None else ()
        total = max(1, sum(self._shares.values()))
        for name, colour in self.classes.items():
            entry: dict[str, Any] = {"name": name, "colour": colour, "labelled": counts.get(name, 0)}
            if name in known:
                k = known.index(name)
                entry["share"] = self._shares[k] / total
                if self.scores is not None:
                    entry |= {"recall": float(self.scores.recall[k]), "precision": float(self.scores.precision[k])}
            told.append(entry)
        return told

    def _told_scores(self) -> dict[str, Any]:
        """Return how good the classifier is, or why nobody knows."""
        if self.classifier is None:
            return {"why": f"nothing is learned yet: label {LEAST} cells of each of two classes"}
        if self.scores is None:
            return {"why": "no score: all labelled cells lie in one place; label some elsewhere"}
        scores = self.scores
        where = (
            f"{scores.regions} slides" if scores.kind == "slides" else f"{scores.regions} {scores.kind} of one slide"
        )
        return {
            "balanced_accuracy": scores.balanced_accuracy,
            "guessing": 1 / len(scores.classes),
            "where": f"cells left out, {scores.folds} folds over {where}",
            "one": scores.kind != "slides",
        }
