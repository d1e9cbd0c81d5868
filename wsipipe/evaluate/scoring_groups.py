"""What an evaluation says of nuclei by their size, and of images by their group: an organ, a scanner, a hospital."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsipipe.artifacts import atomic_write
from wsipipe.artifacts.plain import text_of
from wsipipe.errors import DatasetError, in_words
from wsipipe.evaluate.metrics import Counts, Interval, SizeCounts, Summary, size_classes, summarise
from wsipipe.labels import Annotated
from wsipipe.settings import EvaluateSettings

SHOWN = {"dice": "Dice", "DQ": "F1", "PQ": "PQ", "AJI": "AJI"}
"""Scores of a group, by the names in tables."""
GROUPED = 2
"""Columns of a table of groups."""


def read_groups(path: Path, images: Sequence[Annotated]) -> list[str]:
    """Return the group of each image from a CSV file of two columns: an image or a patient, and its group.

    Raises
    ------
    DatasetError
        When the file cannot be read, has a line that is not two values, names one thing twice, or leaves an image out.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(text_of(path, "utf-8-sig"), newline="")) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{path} is not a readable table of groups ({in_words(error)}); expected a CSV file"
        ) from error
    group: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if len(row) != GROUPED or not all(value.strip() for value in row):
            raise DatasetError(f"{path}, line {number}: {','.join(row)!r}; expected an image or patient, and its group")
        if row[0] in group:
            raise DatasetError(f"{path}, line {number}: {row[0]} has a group already; expected each name once")
        group[row[0]] = row[1].strip()
    found = [group.get(image.name, group.get(image.patient, "")) for image in images]
    if "" in found:
        left = images[found.index("")]
        raise DatasetError(f"{path} has no group for {left.name} (patient {left.patient}); add a line for either")
    return found


@dataclass(frozen=True)
class Groups:
    """Scores of groups of images.

    Attributes
    ----------
    counts : dict of str to list of Counts
        Of each group's images.
    scores : dict of str to Summary
    """

    counts: dict[str, list[Counts]]
    scores: dict[str, Summary]

    @classmethod
    def of(cls, names: Sequence[str], each: Sequence[Counts], settings: EvaluateSettings) -> Groups:
        """Return the scores of the groups whose *names* are given for *each* image."""
        counts = {name: [c for c, own in zip(each, names, strict=True) if own == name] for name in sorted(set(names))}
        return cls(counts, {name: summarise(own, settings.resamples, settings.seed) for name, own in counts.items()})


def markdown_groups(groups: Groups) -> str:
    """Return the table of the groups; intervals only where a group has several images."""
    lines = [f"| group | images | annotated | found | {' | '.join(SHOWN.values())} |", "|---" * (4 + len(SHOWN)) + "|"]
    for name, own in groups.counts.items():
        numbers = len(own), sum(c.truth for c in own), sum(c.found for c in own)
        values = [_text(groups.scores[name].pooled[score], len(own) > 1) for score in SHOWN]
        lines.append(f"| {name} | {' | '.join(f'{n:,}' for n in numbers)} | {' | '.join(values)} |")
    return "\n".join([*lines, "", "Pooled over the images of each group.", ""])


def markdown_sizes(sizes: SizeCounts) -> str:
    """Return the table of nuclei by size."""
    lines = [
        "| diameter, µm | annotated | of them found | mean IoU of these | found | of them right |",
        "|---|---|---|---|---|---|",
    ]
    shares = sizes.recall, sizes.quality, sizes.precision
    rows = zip(size_classes(), sizes.truth, sizes.found, *shares, strict=True)
    for name, truth, found, recall, quality, precision in rows:
        values = f"{truth:,.0f} | {_share(recall)} | {_share(quality)} | {found:,.0f} | {_share(precision)}"
        lines.append(f"| {name} | {values} |")
    return "\n".join([*lines, "", "By the diameter of a circle of the same area, of the nucleus that is counted.", ""])


def plain_sizes(sizes: SizeCounts) -> list[dict[str, Any]]:
    """Return a row for each class of size: counts and shares, None where there is nothing to share."""
    columns = {
        "annotated": sizes.truth.astype(int),
        "matched": sizes.matched.astype(int),
        "recall": sizes.recall,
        "mean_iou": sizes.quality,
        "found": sizes.found.astype(int),
        "precision": sizes.precision,
    }
    rows = zip(size_classes(), *columns.values(), strict=True)
    return [{"diameter_um": name, **dict(zip(columns, map(_plain, row), strict=True))} for name, *row in rows]


def write_sizes(path: Path, sizes: SizeCounts) -> None:
    """Write a CSV file with a row for each class of size."""
    rows = plain_sizes(sizes)
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _plain(value: np.generic) -> float | int | None:
    return None if np.isnan(value) else value.item()


def _share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _text(score: Interval, spread: bool) -> str:
    return f"{score.value:.3f}" + (f" ({score.low:.3f}–{score.high:.3f})" if spread else "")
