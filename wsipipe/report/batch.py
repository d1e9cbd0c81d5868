"""The report of many slides: one page with a line each, what failed first."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from wsipipe.artifacts import from_json
from wsipipe.formats.colours import class_colours
from wsipipe.formats.parquet import batches
from wsipipe.formats.table import class_codes
from wsipipe.report import charts
from wsipipe.report.facts import Facts
from wsipipe.report.page import CELL_SHADE, timings, view_of
from wsipipe.report.pictures import SMALL_SIDE, Picture, picture_of
from wsipipe.report.rendered import render, write_page
from wsipipe.slide import Slide

DONE, FAILED, SKIPPED = "done", "failed", "skipped"
_ORDER = {FAILED: 0, DONE: 1, SKIPPED: 2}
_NAMES = ("slide", "source", "path", "name")
_STATES = ("state", "status", "outcome", "result")
_REASONS = ("reason", "error", "message", "why")
MOST_UM2, BINS, FINE = 150.0, 50, 30
"""Sizes on the axis of all slides, its bins, and finer ones in each; nuclei above it are counted at its end."""
_LISTS = ("slides", "entries", "results", "items")

Path = str | os.PathLike[str]


class Small(NamedTuple):
    """Cells of a slide in small: shares of the classes, sizes, and the median size in µm²."""

    classes: Markup
    sizes: Markup
    median: float


@dataclass(frozen=True)
class Entry:
    """A slide of a batch.

    Attributes
    ----------
    name : str
        From :func:`label`.
    state : {"done", "failed", "skipped"}
    reason : str
        Why it failed or was skipped.
    facts : Facts, optional
        Where there are cells.
    link : str
        Address of its own report, relative to the page; empty where there is none.
    picture : Picture, optional
    small : Small, optional
        Its cells in two small charts, to compare with others.
    """

    name: str
    state: str = DONE
    reason: str = ""
    facts: Facts | None = None
    link: str = ""
    picture: Picture | None = None
    small: Small | None = None


def write_index(out: Path, title: str, entries: Sequence[Entry]) -> None:
    """Write the report of a batch as one HTML file, atomically: totals, what failed and why, and a line per slide."""
    known = [e.facts for e in entries if e.facts is not None]
    cells, mm2 = sum(f.cells for f in known), sum(f.tissue_mm2 for f in known)
    spent: dict[str, float] = {}
    for facts in known:
        for stage, seconds in facts.stages.items():
            spent[stage] = spent.get(stage, 0.0) + seconds
    page = render(
        "batch.html",
        title=title,
        entries=sorted(entries, key=lambda e: (_ORDER.get(e.state, 0), e.name)),
        states={state: sum(e.state == state for e in entries) for state in _ORDER},
        cells=cells,
        mm2=mm2,
        density=cells / mm2 if mm2 else 0.0,
        densest=max((f.density for f in known), default=0.0) or 1.0,
        timings=timings(spent),
        multiples=sum(e.small is not None for e in entries),
        most_um2=MOST_UM2,
    )
    write_page(out, page)


def small_picture(facts: Facts, slide: Slide) -> Picture:
    """Return a small picture of the slide, for its line."""
    return picture_of(view_of(facts, slide, None, SMALL_SIDE), 75)


def small_charts(master: Path, facts: Facts) -> Small:
    """Return the cells of a master file in small: their classes, and how large they are, on an axis for all slides."""
    classes = tuple(facts.about.get("classes") or {})
    counts, by_class = np.zeros(BINS * FINE, np.int64), np.zeros(len(classes) + 1, np.int64)
    for batch in batches(master, ["class", "area_um2"]):
        by_class += np.bincount(class_codes(batch["class"], classes), minlength=len(by_class))
        areas = np.nan_to_num(batch["area_um2"].to_numpy(False)).clip(0, MOST_UM2 * (1 - 1e-6))
        counts += np.bincount((areas / MOST_UM2 * len(counts)).astype(np.int64), minlength=len(counts))
    shades = {name: charts.css(rgb) for name, rgb in class_colours(facts.about.get("classes") or {}).items()}
    bar = charts.class_bar(classes, by_class.tolist(), shades, CELL_SHADE)
    total = np.cumsum(counts)
    middle = float(np.searchsorted(total, total[-1] / 2) + 0.5) / len(counts) if total[-1] else float("nan")
    chart = charts.sparkline(counts.reshape(BINS, FINE).sum(axis=1).tolist(), middle)
    return Small(bar, chart, middle * MOST_UM2)


def entries_of(report: Any) -> list[Entry]:
    """Return the slides that a batch's ``report.json`` names, with their states and reasons.

    Keys that are not known are passed over, so that reports of other versions are read as far as they are understood.
    """
    rows = report
    if isinstance(report, Mapping):
        rows = next((report[key] for key in _LISTS if isinstance(report.get(key), list | dict)), [])
    if isinstance(rows, Mapping):
        rows = [{"slide": name, **row} for name, row in rows.items() if isinstance(row, Mapping)]
    found = []
    for row in rows if isinstance(rows, list) else []:
        name = _first(row, _NAMES)
        if name:
            state = _first(row, _STATES).lower() or (FAILED if _first(row, _REASONS) else DONE)
            reason = _first(row, _REASONS).replace(name, os.path.basename(name))
            found.append(
                Entry(
                    label(_first(row, ("name",)), name),
                    state if state in _ORDER else SKIPPED,
                    reason or ("" if state in _ORDER else state),
                )
            )
    return found


def label(name: str, slide: str) -> str:
    """Return what a slide is called among others: the *name* of its results, and its file without the folder."""
    folder, last = os.path.split(name)
    file = os.path.basename(slide.rstrip("/"))
    return os.path.join(folder, file) if file.startswith(last) else f"{name} ({file})"


def _first(row: Any, names: Sequence[str]) -> str:
    """Return the first of some keys of a mapping that holds text."""
    if not isinstance(row, Mapping):
        return ""
    return next((row[name] for name in names if isinstance(row.get(name), str)), "")


def joined(entries: list[Entry], told: list[Entry]) -> list[Entry]:
    """Return *entries* with those slides that only the batch's own report names: what failed or was skipped.

    A failure is never left out.
    """
    shown = {entry.name for entry in entries}
    return entries + [entry for entry in told if entry.state == FAILED or entry.name not in shown]


def told_of(folder: pathlib.Path) -> list[Entry]:
    """Return the entries of the batch's own report in *folder*; none where there is no readable one."""
    try:
        return entries_of(from_json((folder / "report.json").read_text("utf-8")))
    except (OSError, ValueError):
        return []


def link(page: pathlib.Path, index: pathlib.Path) -> str:
    """Return the address of *page* as seen from *index*; empty where no relative one exists."""
    try:
        return quote(page.resolve().relative_to(index.resolve().parent).as_posix())
    except ValueError:
        return ""
