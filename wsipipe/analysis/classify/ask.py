"""The least certain cells of all slides as annotations for QuPath, to be given a class there and read in again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import shapely

from wsipipe.analysis.classify import Classifier, doubt, questions
from wsipipe.analysis.classify.candidates import Candidates, candidates_of
from wsipipe.artifacts import check_writable
from wsipipe.errors import OutputError
from wsipipe.formats.annotations import Annotation, write_annotations
from wsipipe.formats.imported import DRAWN
from wsipipe.formats.labelled import Labels
from wsipipe.formats.parquet import metadata

SPARE = 2
"""So many times as many are looked at: a cell whose centre lies outside of it would not be found again."""


def check_questions(out: Path, masters: Mapping[str, Path], many: bool) -> None:
    """Raise OutputError when questions cannot go to *out*."""
    if not many and not out.name.endswith(DRAWN[0]):
        raise OutputError(f"--questions {out}: annotations for QuPath are a {DRAWN[0]}")
    if many and (out.name.endswith(DRAWN) or out.is_file()):
        raise OutputError(f"--questions {out}: there are several slides; give a folder")
    for name in masters:
        check_writable(_place(out, name, many))


def ask(
    out: Path, masters: Mapping[str, Path], many: bool, classifier: Classifier, known: Mapping[str, Labels], count: int
) -> dict[str, int]:
    """Write the *count* least certain cells of all slides for QuPath; return how many there are of each slide.

    They are annotations without a class, called by their place in the order of doubt and the likeliest class.
    """
    candidates = candidates_of(masters, classifier.columns, known)
    told = {row[1] for row in classifier.examples.get("cells") or ()}
    free = np.flatnonzero([id_ not in told for id_ in candidates.ids])
    x = candidates.values(free)
    probabilities = classifier.probabilities(x)
    doubts = doubt(probabilities)
    areas: dict[int, list[Annotation]] = defaultdict(list)
    for i in questions(doubts, x, SPARE * count).tolist():
        number = 1 + sum(map(len, areas.values()))
        if number <= count and (shape := _outline(candidates, int(free[i]))) is not None:
            likeliest = classifier.classes[int(probabilities[i].argmax())]
            chances = {f"probability {name}": float(p) for name, p in zip(classifier.classes, probabilities[i])}
            area = Annotation(f"{number:03d} {likeliest}?", "", (0, 0, 0), shape, {"doubt": float(doubts[i])} | chances)
            areas[int(candidates.slide[free[i]])].append(area)
    for k, own in areas.items():
        write_annotations(_place(out, candidates.names[k], many), own, metadata(candidates.masters[k]))
    return {candidates.names[k]: len(own) for k, own in sorted(areas.items())}


def _outline(candidates: Candidates, k: int) -> shapely.Geometry | None:
    """Return the outline of a candidate in base px; None where its centre lies outside of it."""
    row = candidates.table(k)
    shape = shapely.from_wkb(row["geometry"][0].as_py())
    return shape if shapely.contains_xy(shape, row["x"][0].as_py(), row["y"][0].as_py()) else None


def _place(out: Path, name: str, many: bool) -> Path:
    return out / f"{name}{DRAWN[0]}" if many else out
