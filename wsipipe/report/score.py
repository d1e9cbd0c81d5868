"""The page of a score, and its panel of a report: the histogram with its thresholds, cells on both sides of each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import shapely
from markupsafe import Markup
from numpy.typing import NDArray

from wsipipe.figure.overlay import look
from wsipipe.formats.colours import NO_CLASS, class_colours
from wsipipe.formats.columns import qupath_name
from wsipipe.formats.parquet import batches, metadata
from wsipipe.report.charts import number
from wsipipe.report.pictures import Picture, cell_outline, outlined, picture_of
from wsipipe.report.rendered import render, write_page
from wsipipe.slide import Slide

SHOWN = 8
"""Cells shown on each side of a threshold."""
CROP_UM, CROP_PX = 24.0, 96
"""Side of the picture of a cell."""
BARS, WIDTH, HEIGHT, FOOT = 90, 720, 220, 26


class Side(NamedTuple):
    """Cells on one side of a threshold: its title, and a picture and the value of each."""

    title: str
    cells: list[tuple[Picture, float]]


def write_score(
    master: Path, out: Path, suggested: Sequence[float], rows: Sequence[Mapping[str, Any]], slide: Slide | None = None
) -> None:
    """Write the page of scored cells as one HTML file, atomically.

    Parameters
    ----------
    master : path
        Scored cells.
    out : path
    suggested : sequence of float
        Thresholds that the histogram suggests.
    rows : sequence of mapping
        Numbers of the slide and its regions.
    slide : Slide, optional
        Without it the page has no pictures.
    """
    panel = score_panel(master, metadata(master), suggested, slide)
    page = render("score.html", title=panel["title"], score=panel, rows=rows, stepped=len(panel["thresholds"]) > 1)
    write_page(out, page)


def score_panel(
    master: str | os.PathLike[str], about: Mapping[str, Any], suggested: Sequence[float] | None, slide: Slide | None
) -> dict[str, Any]:
    """Return what shows how cells were told apart: the histogram, and pictures of cells on both sides of thresholds.

    Parameters
    ----------
    master : path
        Scored cells.
    about : mapping
        Its metadata.
    suggested : sequence of float, optional
        Thresholds that the histogram suggests; None where nobody has asked.
    slide : Slide, optional
        Without it there are no pictures.
    """
    column, thresholds = str(about["score"]["column"]), [float(cut) for cut in about["score"]["thresholds"]]
    found = pa.Table.from_batches(list(batches(master, ["x", "y", column]))) if about["cells"] else None
    values = found[column].to_numpy().astype(np.float64) if found is not None else np.zeros(0)
    sides: list[tuple[float, list[Side]]] = []
    if slide is not None and found is not None:
        xy = np.column_stack([found["x"].to_numpy(), found["y"].to_numpy()])
        sides = [(cut, _sides(master, slide, about, values, xy, cut)) for cut in thresholds]
    return {
        "title": f"{about['score']['marker']}: {qupath_name(column, about.get('stain_vectors'))}",
        "chart": chart(values, thresholds, suggested or ()),
        "thresholds": thresholds,
        "suggested": None if suggested is None else list(suggested),
        "unscored": int(np.isnan(values).sum()),
        "cells": len(values),
        "sides": sides,
    }


def chart(values: NDArray[np.float64], thresholds: Sequence[float], suggested: Sequence[float]) -> Markup:
    """Return the histogram of *values* as SVG, heights by square root so that few cells are seen beside many."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Markup('<p class="none">no cells</p>')
    low, high = min(0.0, float(np.quantile(known, 0.001))), max(float(np.quantile(known, 0.999)), *thresholds) * 1.02
    counts, _ = np.histogram(known, BARS, (low, high))
    room, width = HEIGHT - FOOT - 4, WIDTH / BARS
    tall = np.sqrt(counts / max(counts.max(), 1)) * room
    bars = "".join(
        f"M{i * width + 0.5:.1f} {HEIGHT - FOOT}v{-t:.1f}h{width - 1:.1f}v{t:.1f}z" for i, t in enumerate(tall) if t
    )
    parts = [Markup('<path fill="#6b4fa0" d="{}"/>').format(bars)]
    for cuts, dashes in ((suggested, "2 4"), (thresholds, "")):
        for cut in cuts:
            x = (cut - low) / (high - low) * WIDTH
            line = '<path class="axis" stroke-width="2" stroke-dasharray="{}" d="M{:.1f} 0V{}"/>'
            parts.append(Markup(line).format(dashes, x, HEIGHT - FOOT))
    parts.append(Markup('<path class="axis" d="M0 {}H{}"/>').format(HEIGHT - FOOT, WIDTH))
    for tick in np.arange(np.ceil(low * 5) / 5, high, 0.2).tolist():
        x = (tick - low) / (high - low) * WIDTH
        text = '<text x="{:.1f}" y="{}" text-anchor="middle">{:.1f}</text>'
        parts.append(Markup(text).format(min(max(x, 10), WIDTH - 10), HEIGHT - 7, tick))
    box = '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="histogram">{}</svg>'
    return Markup(box).format(WIDTH, HEIGHT, Markup("").join(parts))


def _sides(
    master: str | os.PathLike[str],
    slide: Slide,
    about: Mapping[str, Any],
    values: NDArray[np.float64],
    xy: NDArray[np.float64],
    cut: float,
) -> list[Side]:
    """Return the cells nearest to a threshold, below it and above."""
    order = np.argsort(values, kind="stable")
    order = order[: int(np.isfinite(values).sum())]
    place = int(np.searchsorted(values[order], cut))
    below, above = order[max(0, place - SHOWN) : place], order[place : place + SHOWN]
    colours = class_colours(about["classes"])
    told = ((f"just below {number(cut)}", below), (f"just above {number(cut)}", above))
    return [
        Side(title, [(_crop(master, slide, about, xy[i], colours), float(values[i])) for i in rows])
        for title, rows in told
    ]


def _crop(
    master: str | os.PathLike[str], slide: Slide, about: Mapping[str, Any], xy: NDArray[np.float64], colours: Any
) -> Picture:
    """Return the picture of a cell with the outlines in it."""
    half = CROP_UM / 2 / np.array(about["mpp"])
    box = tuple(np.rint([*(xy - half), *(xy + half)]).astype(int).tolist())
    view = look(slide, box, CROP_PX)
    picture = picture_of(view, 90)
    paths = []
    for batch in batches(master, ["geometry", "class"], box):
        for wkb, name in zip(batch["geometry"].to_pylist(), batch["class"].to_pylist()):
            paths.append(cell_outline(view, shapely.from_wkb(wkb), colours.get(name, NO_CLASS), name or ""))
    picture.layers.append(outlined(paths, picture.width, picture.height))
    return picture
