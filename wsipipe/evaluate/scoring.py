"""What an evaluation leaves behind: tables, a report, label maps, and pictures of right and wrong."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsipipe import __version__
from wsipipe.artifacts import atomic_path, atomic_write, write_json
from wsipipe.evaluate.metrics import (
    MATCH_IOU,
    Counts,
    DetectionSummary,
    Interval,
    SizeCounts,
    Summary,
    TypeSummary,
    boundary,
    overlaps,
    scored,
    scores,
)
from wsipipe.evaluate.scoring_groups import Groups, markdown_groups, markdown_sizes, plain_sizes, write_sizes
from wsipipe.evaluate.scoring_types import markdown_points, markdown_types, write_types
from wsipipe.evaluate.tuning import Trial
from wsipipe.figure.overlay import View, draw_legend, draw_scale_bar, write_png
from wsipipe.labels import DEFAULT_MPP, Annotated

CLASSES = (("Dice", "dice", "mDice"), ("precision", "precision", "mPrecision"), ("recall", "recall", "mRecall"),
           ("IoU", "iou", "mIoU"))  # fmt: skip
"""Measures that stand side by side: of nuclei only, and mean over nucleus and background."""
ONE_VALUE = {
    "mF1": "mF1",
    "pixel accuracy": "pixel_accuracy",
    "mean accuracy": "mean_accuracy",
    "FWIoU": "FWIoU",
    "BF1": "BF1",
    "AJI": "AJI",
    "DQ (F1@0.5)": "DQ",
    "SQ": "SQ",
    "PQ": "PQ",
    "nuclei: precision": "object_precision",
    "nuclei: recall": "object_recall",
}
COLOURS = {"found": (0, 220, 60), "false": (255, 30, 30), "missed": (255, 225, 0)}
"""Outlines: found nuclei that match a true one, those that do not, and true ones without a match."""
PICTURE_SIDE = 1600
"""Small images are shown enlarged up to about this side."""

Labels = NDArray[np.int32]


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
    rows = [f"| {title} | {_text(summary.pooled[n])} | {_text(summary.mean[n])} |" for title, n in ONE_VALUE.items()]
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


def write_labels(folder: Path, name: str, labels: Labels) -> None:
    """Write a label map as 16-bit PNG, or as NPY when it holds more than 65,535 cells."""
    folder.mkdir(exist_ok=True)
    if labels.max(initial=0) > np.iinfo(np.uint16).max:
        with atomic_write(folder / f"{name}.npy") as file:
            np.save(file, labels)
        return
    _, data = cv2.imencode(".png", labels.astype(np.uint16))
    with atomic_write(folder / f"{name}.png") as file:
        file.write(data.tobytes())


def write_pictures(folder: Path, items: Mapping[str, Annotated], found: Mapping[str, Labels]) -> None:
    """Write a PNG per entry of *items* (by its name): the image with right and wrong outlines; old ones go."""
    folder.mkdir(exist_ok=True)
    for old in [*folder.glob("best-*.png"), *folder.glob("worst-*.png")]:
        old.unlink()
    for name, item in items.items():
        write_png(folder / f"{name}.png", picture(item, found[item.name]))


def picture(item: Annotated, found: Labels) -> NDArray[np.uint8]:
    """Return the image, enlarged when small, with outlines in :data:`COLOURS`, a legend and a scale bar."""
    height, width = found.shape
    times = max(1, min(4, PICTURE_SIDE // max(height, width)))
    truth, found = scored(item.labels, found)
    pairs = overlaps(truth, found)
    good = pairs.iou > MATCH_IOU
    hit = np.isin(found, pairs.found[good])
    layers = {
        "missed": np.where(np.isin(truth, pairs.truth[good]), 0, truth),
        "false": np.where(hit, 0, found),
        "found": np.where(hit, found, 0),
    }
    view = View(_enlarged(item.image, times), (0, 0, width, height), (1 / times,) * 2, (item.mpp / times,) * 2)
    for name, labels in layers.items():
        view.rgb[_outline(labels, times)] = COLOURS[name]
    numbers = {name: len(np.unique(labels[labels > 0])) for name, labels in layers.items()}
    draw_legend(view, {f"{name}: {numbers[name]}": colour for name, colour in COLOURS.items()})
    draw_scale_bar(view)
    return view.rgb


def _enlarged(image: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    size = image.shape[1] * times, image.shape[0] * times
    return np.array(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _outline(labels: Labels, times: int) -> NDArray[np.bool_]:
    """Return the outline, two pixels wide, of every nucleus in an enlarged picture."""
    large = np.repeat(np.repeat(labels, times, axis=0), times, axis=1)
    edge = boundary(large)
    if times == 1:
        return edge
    wide = cv2.dilate(edge.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return wide & (large > 0)
