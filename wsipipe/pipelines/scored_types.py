"""What an evaluation says of cell types: two tables in the report, and ``types.csv``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsipipe.artifacts import atomic_write
from wsipipe.labels import Annotated, type_names
from wsipipe.metrics import Counts, Interval, TypeSummary, Values, confusion, count_types, summarise_types
from wsipipe.settings import EvaluateSettings

Labels = NDArray[np.int32]


@dataclass
class TypeTally:
    """Counts of cell types, image by image; nothing where labels or model have no types.

    Attributes
    ----------
    names : tuple of str
        Types of the labels.
    """

    names: tuple[str, ...]
    by_image: list[dict[str, Counts]] = field(default_factory=list)
    tables: list[NDArray[np.int64]] = field(default_factory=list)

    @classmethod
    def of(cls, images: Sequence[Annotated], model_types: Sequence[str]) -> TypeTally:
        """Return an empty tally of the types that labels and model share, and all others of the labels."""
        names = type_names(images)
        return cls(names if set(names) & set(model_types) else ())

    def add(self, item: Annotated, found: Labels, types: Sequence[str]) -> None:
        """Count one image."""
        if self.names:
            kinds = dict(enumerate(item.types, 1)), dict(enumerate(types, 1))
            self.by_image.append(count_types(item.labels, kinds[0], found, kinds[1], self.names))
            self.tables.append(confusion(item.labels, kinds[0], found, kinds[1], self.names))

    def summary(self, settings: EvaluateSettings) -> TypeSummary | None:
        """Return the scores of the set's types, None where there are none."""
        if not self.names:
            return None
        return summarise_types(self.by_image, self.tables, settings.resamples, settings.seed)


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
