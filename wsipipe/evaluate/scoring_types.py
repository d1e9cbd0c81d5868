"""What an evaluation says of nuclei as points and of cell types: tables in the report, and ``types.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsipipe.artifacts import atomic_write
from wsipipe.evaluate.metrics import (
    Counts,
    DetectionSummary,
    Interval,
    TypeSummary,
    Values,
    confusion,
    count_types,
    detections,
    image_means,
    summarise_detections,
    summarise_types,
)
from wsipipe.evaluate.metrics.detection import REACH_UM, WAYS
from wsipipe.labels import Annotated, type_names
from wsipipe.settings import EvaluateSettings

Labels = NDArray[np.int32]


@dataclass
class TypeTally:
    """Counts of nuclei as points, and of cell types where labels and model share some, image by image.

    Attributes
    ----------
    names : tuple of str
        Types of the labels.
    """

    names: tuple[str, ...]
    by_image: list[dict[str, Counts]] = field(default_factory=list)
    tables: list[NDArray[np.int64]] = field(default_factory=list)
    points: dict[str, list[NDArray[np.int64]]] = field(default_factory=lambda: {way: [] for way in WAYS})

    @classmethod
    def of(cls, images: Sequence[Annotated], model_types: Sequence[str]) -> TypeTally:
        """Return an empty tally of the types that labels and model share, and all others of the labels."""
        names = type_names(images)
        return cls(names if set(names) & set(model_types) else ())

    def add(self, item: Annotated, found: Labels, types: Sequence[str]) -> None:
        """Count one image."""
        kinds = dict(enumerate(item.types, 1)), dict(enumerate(types, 1))
        for way, tables in self.points.items():
            tables.append(detections(item.labels, kinds[0], found, kinds[1], self.names, item.mpp, way))
        if self.names:
            self.by_image.append(count_types(item.labels, kinds[0], found, kinds[1], self.names))
            self.tables.append(confusion(item.labels, kinds[0], found, kinds[1], self.names))

    def summary(self, settings: EvaluateSettings) -> TypeSummary | None:
        """Return the scores of the set's types, None where there are none."""
        if not self.names:
            return None
        return summarise_types(self.by_image, self.tables, settings.resamples, settings.seed)

    def detection(self, settings: EvaluateSettings) -> DetectionSummary:
        """Return F_d, and F_c of the set's types."""
        return summarise_detections(self.points, self.names, settings.resamples, settings.seed)

    def image_means(self, each: Sequence[Counts], settings: EvaluateSettings) -> dict[str, Interval]:
        """Return PanNuke's bPQ and mPQ from the counts of all nuclei of *each* image and those of the types."""
        return image_means(each, self.by_image, settings.resamples, settings.seed)


def markdown_points(summary: DetectionSummary, means: Mapping[str, Interval]) -> str:
    """Return the table of nuclei as points, and PanNuke's means."""
    rows = {"nuclei (F_d)": summary.f_d} | {f"{name} (F_c)": found for name, found in summary.f_c.items()}
    lines = [f"| centroids within {REACH_UM:g} µm | paired within reach | paired over all distances |", "|---|---|---|"]
    lines += [f"| {name} | {' | '.join(_text(found[way]) for way in WAYS)} |" for name, found in rows.items()]
    shown = "; ".join(f"{name} {_text(value)}" for name, value in means.items())
    return "\n".join([*lines, "", f"Means over images with nuclei, as PanNuke's: {shown}.", ""])


def markdown_types(summary: TypeSummary) -> str:
    """Return the tables of the cell types."""
    lines = ["| type | annotated | found | F1@0.5 | SQ | PQ |", "|---|---|---|---|---|---|"]
    for name, found in summary.scores.items():
        counts = summary.counts[name]
        scores = " | ".join(_text(found[score]) for score in ("DQ", "SQ", "PQ"))
        lines.append(f"| {name} | {_whole(counts.truth)} | {_whole(counts.found)} | {scores} |")
    lines.append(f"| mean (mF1, mPQ+) | | | {_text(summary.mean_f1)} | | {_text(summary.mpq_plus)} |")
    names = list(summary.scores)
    lines += [
        "",
        "Pooled over the images; of a type only its own nuclei count. Matched nuclei by type, true ones in rows:",
    ]
    lines += ["", f"| | {' | '.join(names)} | missed |", "|---" * (len(names) + 2) + "|"]
    for name, row in zip([*names, "not annotated"], summary.confusion.tolist(), strict=True):
        shown = row if name != "not annotated" else [*row[:-1], ""]
        lines.append(f"| {name} | {' | '.join(str(v) for v in shown)} |")
    return "\n".join([*lines, ""])


def write_types(path: Path, summary: TypeSummary) -> None:
    """Write a CSV file with a row per type: its scores with intervals, and its row of the confusion table."""
    names = list(summary.scores)
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        bounds = [f"{score}{end}" for score in ("DQ", "SQ", "PQ") for end in ("", "_low", "_high")]
        writer.writerow(["type", "annotated", "found", *bounds, *(f"as {name}" for name in names), "missed"])
        for name, row in zip(names, summary.confusion.tolist(), strict=False):
            counts, found = summary.counts[name], summary.scores[name]
            values = [v for score in ("DQ", "SQ", "PQ") for v in found[score]]
            writer.writerow([name, _whole(counts.truth), _whole(counts.found), *values, *row])


def _whole(value: Values) -> int:
    return int(value)


def _text(score: Interval) -> str:
    return f"{score.value:.3f} ({score.low:.3f}–{score.high:.3f})"
