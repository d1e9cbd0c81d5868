"""What is counted of a set's images, one after the other, whoever found their nuclei; and what is said of it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from wsipipe.evaluate.image import Labels
from wsipipe.evaluate.metrics import Counts, SizeCounts, Summary, TypeSummary, count, count_sizes, summarise
from wsipipe.evaluate.scoring import Scores, markdown, write_scores, write_tables
from wsipipe.evaluate.scoring_groups import Groups
from wsipipe.evaluate.scoring_types import TypeTally
from wsipipe.labels import Annotated, DatasetSpec
from wsipipe.settings import EvaluateSettings


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a model on an annotated set.

    Attributes
    ----------
    images : list of (Annotated, Counts)
    scores : Scores
    about : dict
        What was scored, how, and with what: for reports.
    """

    images: list[tuple[Annotated, Counts]]
    scores: Scores
    about: dict[str, object]

    @property
    def summary(self) -> Summary:
        """Scores of the outlines."""
        return self.scores.outlines

    @property
    def types(self) -> TypeSummary | None:
        """Scores of cell types, where labels and model share some."""
        return self.scores.types

    @property
    def markdown(self) -> str:
        """The report as Markdown."""
        return markdown(self.about, self.scores)

    def write(self, out: Path) -> None:
        """Write the tables and the report into the folder *out*."""
        write_tables(out, self.images)
        write_scores(out, self.about, self.scores)


class Tally:
    """Counts of a set's images.

    Parameters
    ----------
    images : sequence of Annotated
        All that will be counted.
    types : sequence of str
        Cell types that whoever found the nuclei tells.
    scoring : EvaluateSettings
    """

    def __init__(self, images: Sequence[Annotated], types: Sequence[str], scoring: EvaluateSettings) -> None:
        self.images, self.scoring = images, scoring
        self.counted: list[tuple[Annotated, Counts]] = []
        self._sizes: list[SizeCounts] = []
        self._types = TypeTally.of(images, types)

    def add(self, item: Annotated, found: Labels, types: Sequence[str] = ()) -> None:
        """Count one image, of which the nuclei *found*, int32 (H, W), have the *types*."""
        self._types.add(item, found, types)
        self.counted.append((item, count(item.labels, found, self.scoring.tolerance_px)))
        self._sizes.append(count_sizes(item.labels, found, item.mpp))

    def result(self, dataset: DatasetSpec, part: str, groups: Sequence[str], more: dict[str, Any]) -> Evaluation:
        """Return the scores of all images, by *groups* too where each image has one; *more* is said of it."""
        each, asked = [c for _, c in self.counted], self.scoring
        scores = Scores(
            summarise(each, asked.resamples, asked.seed),
            self._types.detection(asked),
            self._types.image_means(each, asked),
            reduce(add, self._sizes),
            self._types.summary(asked),
            Groups.of(groups, each, asked) if groups else None,
        )
        return Evaluation(self.counted, scores, self._about(dataset, part) | more | {"scoring": asdict(asked)})

    def _about(self, dataset: DatasetSpec, part: str) -> dict[str, object]:
        mpps = [item.mpp for item, _ in self.counted]
        return {
            "dataset": dataset.path,
            "part": part if dataset.split else "all",
            "images": len(self.counted),
            "patients": len({item.patient for item, _ in self.counted}),
            "empty_images": sum(not (c.truth or c.found) for _, c in self.counted),
            "nuclei": sum(c.truth for _, c in self.counted),
            "found": sum(c.found for _, c in self.counted),
            "mpp": [float(min(mpps)), float(np.median(mpps)), float(max(mpps))],
            "assumed_mpp": sum(item.assumed for item, _ in self.counted),
        }
