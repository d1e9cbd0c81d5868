"""What an evaluation leaves behind: tables, a report, label maps, and pictures of right and wrong."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wsipipe._version import __version__
from wsipipe.artifacts import atomic_path, atomic_write, write_json
from wsipipe.evaluate.metrics import (
    MATCH_IOU,
    METRICS,
    Counts,
    DetectionSummary,
    Interval,
    SizeCounts,
    Summary,
    TypeSummary,
    scores,
)
from wsipipe.evaluate.scoring_groups import Groups, markdown_groups, markdown_sizes, plain_sizes, write_sizes
from wsipipe.evaluate.scoring_types import markdown_points, markdown_types, write_types
from wsipipe.evaluate.tuning import Trial
from wsipipe.labels import DEFAULT_MPP, Annotated

CLASSES = (("Dice", "dice", "mDice"), ("precision", "precision", "mPrecision"), ("recall", "recall", "mRecall"),
           ("IoU", "iou", "mIoU"))  # fmt: skip
"""Measures that stand side by side: of nuclei only, and mean over nucleus and background."""


@dataclass(frozen=True)
class Scores:
    """What an evaluation found.

    Attributes
    ----------
    outlines : Summary
    points : DetectionSummary
    image_means : dict of str to Interval
        PanNuke's bPQ, and mPQ where there are types.
    sizes : SizeCounts
    types : TypeSummary, optional
        Where labels and model share types.
    groups : Groups, optional
        Where groups of images were named.
    """

    outlines: Summary
    points: DetectionSummary
    image_means: dict[str, Interval]
    sizes: SizeCounts
    types: TypeSummary | None = None
    groups: Groups | None = None


def markdown(about: Mapping[str, Any], found: Scores) -> str:
    """Return the report of an evaluation: what was scored and how, then tables of scores with intervals."""
    lines = [*_heading(about), "", *_class_table(found.outlines), "", *_value_table(found.outlines, about), ""]
    parts = ["\n".join(lines), markdown_points(found.points, found.image_means), markdown_sizes(found.sizes)]
    parts += [markdown_groups(found.groups)] if found.groups else []
    return "\n".join([*parts, *([markdown_types(found.types)] if found.types else [])])


def _heading(about: Mapping[str, Any]) -> list[str]:
    low, mpp, high = about["mpp"]
    spread = f"{mpp:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    scoring = about["scoring"]
    lines = [
        f"# {about['model']} on {Path(about['dataset']).name} ({about['part']})",
        "",
        f"- {about['images']} images of {about['patients']} patients at {spread} µm/px; {about['nuclei']:,} annotated "
        f"nuclei, {about['found']:,} found",
        *_made_by(about),
        f"- scored at the images' own resolution; nuclei match when IoU > {MATCH_IOU:g}; boundaries agree within "
        f"{scoring['tolerance_px']:g} px; brackets: 95 % of {scoring['resamples']} bootstrap resamples of the images "
        f"(seed {scoring['seed']})",
    ]
    if about["empty_images"]:
        lines.append(
            f"- {about['empty_images']} images have no nuclei, annotated or found: they score 0 in means over images"
        )
    if about["assumed_mpp"]:
        lines.append(f"- {about['assumed_mpp']} images state no resolution: {DEFAULT_MPP:g} µm/px was assumed")
    return lines


def _made_by(about: Mapping[str, Any]) -> list[str]:
    """Return what found the nuclei: a model, or another tool."""
    if "predictions" in about:
        return [f"- instance maps in {about['predictions']}, made by another tool; wsipipe {__version__}"]
    rules, recipe = about["rules"], about["recipe"]
    return [
        f"- model {about['model']}, SHA-256 {about['model_sha256'][:16]}…, at {about['working_mpp']:g} µm/px; "
        + ", ".join(f"{name} {value:g}" for name, value in rules.items()),
        f"- {recipe['dtype']} on {recipe['device']}, torch {recipe['version']}, wsipipe {__version__}",
    ]


def _class_table(summary: Summary) -> list[str]:
    names = [name for _, nucleus, mean in CLASSES for name in (nucleus, mean)]
    cells = {n: (_text(summary.pooled[n]), _text(summary.mean[n])) for n in names}
    head = ["| of pixels | nuclei, pooled | class mean, pooled | nuclei, per image | class mean, per image |"]
    rows = [f"| {title} | {cells[a][0]} | {cells[b][0]} | {cells[a][1]} | {cells[b][1]} |" for title, a, b in CLASSES]
    return [*head, "|---|---|---|---|---|", *rows]


def _value_table(summary: Summary, about: Mapping[str, Any]) -> list[str]:
    titles = {"mF1": "mF1"} | {name: metric.title for name, metric in METRICS.items()}
    rows = [f"| {title} | {_text(summary.pooled[n])} | {_text(summary.mean[n])} |" for n, title in titles.items()]
    return ["| measure | pooled | per image |", "|---|---|---|", *rows]


def _text(score: Interval) -> str:
    return f"{score.value:.3f} ({score.low:.3f}–{score.high:.3f})"


def write_tables(out: Path, counted: Sequence[tuple[Annotated, Counts]]) -> None:
    """Write scores and counts of every image as ``images.parquet`` and ``images.csv``."""
    rows = []
    for item, counts in counted:
        height, width = item.labels.shape
        size = {"mpp": float(item.mpp), "width": width, "height": height}
        rows.append({"image": item.name, "patient": item.patient, **size, **scores(counts), **asdict(counts)})
    table = pa.Table.from_pylist(rows)
    with atomic_path(out / "images.parquet") as path:
        pq.write_table(table, path)
    _write_csv(out / "images.csv", rows)


def write_scores(out: Path, about: Mapping[str, Any], found: Scores) -> None:
    """Write the report as ``scores.md`` and its numbers as ``scores.json``; those of types as ``types.csv`` too."""
    with atomic_write(out / "scores.md", "w") as file:
        file.write(markdown(about, found))
    tables: dict[str, Any] = {kind: _plain(values) for kind, values in found.outlines._asdict().items()}
    tables |= _plain({"F_d": found.points.f_d, "F_c": found.points.f_c, **found.image_means})
    of_types: dict[str, Any] = {}
    if (types := found.types) is not None:
        write_types(out / "types.csv", types)
        of_types = _plain({"mPQ+": types.mpq_plus, "mF1@0.5": types.mean_f1, "types": types.scores})
        of_types["confusion"] = types.confusion
    write_sizes(out / "sizes.csv", found.sizes)
    tables["sizes"] = plain_sizes(found.sizes)
    if found.groups:
        tables["groups"] = {name: _plain(summary.pooled) for name, summary in found.groups.scores.items()}
    write_json(out / "scores.json", {**about, **tables, **of_types})


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested *values* with every interval as a mapping of value, low and high."""
    return {k: _plain(v) if isinstance(v, Mapping) else v._asdict() for k, v in values.items()}


def write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Write one line of CSV per trial, in their order."""
    _write_csv(path, [{**asdict(trial.rules), **trial.scores} for trial in trials])


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
