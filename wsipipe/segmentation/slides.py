"""Which slides a command means: files, folders, patterns, and tables with what is special about each."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import glob
import os
import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from wsipipe.artifacts.plain import text_of
from wsipipe.errors import SettingsError, SlideNotFound, in_words
from wsipipe.segmentation import qupath_project
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.slide_names import absolute, names_of
from wsipipe.settings import CellSettings, GridSettings, SlideSettings, StainSettings, TissueSettings, TypeSettings
from wsipipe.slide.discover import goes_round
from wsipipe.slide.suffixes import SLIDES
from wsipipe.store import is_store

SLIDE_SUFFIXES = (*SLIDES, ".zarr")
"""What a folder is searched for. Pictures (PNG, JPEG) are taken only when they are named, or by a pattern."""
SECTIONS: dict[str, type[Any]] = {
    "slide": SlideSettings,
    "tissue": TissueSettings,
    "grid": GridSettings,
    "cells": CellSettings,
    "stain": StainSettings,
    "types": TypeSettings,
}
"""Settings that a table may give for single slides."""


@dataclass(frozen=True)
class Entry:
    """A slide of a batch.

    Attributes
    ----------
    name : str
        Of its results: a relative path without ending.
    special : mapping
        Settings that hold for this slide alone, by their names; also ``model`` and ``bounds``.
    """

    source: str
    name: str = ""
    special: Mapping[str, Any] = field(default_factory=dict)

    def job(self, like: SegmentJob) -> SegmentJob:
        """Return the job of this slide: as *like*, but for what is special.

        Raises
        ------
        SettingsError
            A value is out of range.
        """
        job = replace(like, source=self.source)
        for section, cls in SECTIONS.items():
            names = {f.name for f in dataclasses.fields(cls)}
            if own := {name: value for name, value in self.special.items() if name in names}:
                job = replace(job, **{section: replace(getattr(job, section), **own)})
        return replace(job, **{name: self.special[name] for name in ("model", "bounds") if name in self.special})


def list_slides(sources: Sequence[str], root: str = "", recursive: bool = True) -> list[Entry]:
    """Return the slides that *sources* name, each once, with a name of its own for its results.

    Parameters
    ----------
    sources : sequence of str
        Slides, folders, patterns such as ``slides/**/*.svs``, CSV tables with a column ``path``, and QuPath
        projects (``project.qpproj``).
    root : str
        Folder below which names begin; by default the slides' deepest common one.

    Raises
    ------
    SlideNotFound
        A source matches nothing.
    SettingsError
        A table is not usable.
    """
    entries: list[Entry] = []
    for source in sources:
        entries += [entry for entry in _entries(source, recursive) if entry not in entries]
    named = names_of(list({absolute(entry.source): None for entry in entries}), root)
    entries = [replace(entry, name=entry.name or named[absolute(entry.source)]) for entry in entries]
    twice = [name for name, count in Counter(entry.name.casefold() for entry in entries).items() if count > 1]
    if twice:
        raise SettingsError(f"two slides would have the results {twice[0]}; give each a name, in a CSV column `name`")
    return entries


def is_batch(sources: Sequence[str]) -> bool:
    """Whether *sources* stand for any number of slides rather than for one."""
    (first, *more) = sources
    several = first.lower().endswith((".csv", qupath_project.SUFFIX)) or (
        glob.has_magic(first) and not os.path.exists(first)
    )
    return bool(more) or several or (os.path.isdir(first) and not _is_slide_folder(Path(first)))


def _entries(source: str, recursive: bool) -> Iterator[Entry]:
    if "://" in source:
        yield Entry(source)
    elif source.lower().endswith(".csv"):
        yield from read_table(Path(source))
    elif source.lower().endswith(qupath_project.SUFFIX):
        yield from (Entry(*image) for image in qupath_project.project_slides(Path(source)))
    elif os.path.isdir(source) and not _is_slide_folder(Path(source)):
        inside = sorted(_search(Path(source), Path(source), recursive))
        if not inside:
            raise SlideNotFound(
                f"no slides in {source} (looked for {', '.join(SLIDE_SUFFIXES)}); pictures by a pattern"
            )
        yield from (Entry(str(path)) for path in inside)
    elif glob.has_magic(source) and not os.path.exists(source):
        top = next(folder for folder in Path(source).parents if not glob.has_magic(str(folder)))
        found = glob.glob(source, recursive=True)
        matches = sorted(path for path in found if _is_slide(Path(path)) and not goes_round(Path(path), top))
        if not matches:
            raise SlideNotFound(f"no slide matches {source}")
        yield from (Entry(path) for path in matches)
    else:
        yield Entry(source)


def _search(folder: Path, top: Path, recursive: bool) -> Iterator[Path]:
    """Yield the slides in *folder*; a folder that is itself a slide (DICOM, tile store) counts as one.

    So does a folder that may not be read, and an empty one with the name of a slide; it then fails alone.
    """
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK) or _is_slide_folder(path) or _holds_nothing(path):
                yield path
            elif recursive and not goes_round(path, top):
                yield from _search(path, top, recursive)
        elif path.suffix.lower() in SLIDE_SUFFIXES:
            yield path


def _is_slide_folder(folder: Path) -> bool:
    """Whether *folder* is one slide: a tile store, or nothing but the instances of a DICOM series."""
    if is_store(folder):
        return True
    suffixes = [p.suffix.lower() for p in folder.iterdir() if not p.name.startswith(".")]
    return bool(suffixes) and set(suffixes) == {".dcm"}


def _holds_nothing(folder: Path) -> bool:
    """Whether *folder* has the name of a slide and nothing in it, as a copy that was broken off leaves it."""
    return folder.suffix.lower() in SLIDE_SUFFIXES and not any(folder.iterdir())


def _is_slide(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and _is_slide_folder(path))


# --- tables -----------------------------------------------------------------------------------------------------------


def read_table(path: Path) -> list[Entry]:
    """Return the slides of a CSV table (comma, semicolon or tab).

    Column ``path`` names the slide, relative to the table's folder; ``name``, ``model``, ``bounds`` and any setting of
    slide, tissue, grid or cells (``mpp``, ``target-mpp``, ``threshold``, ...) hold for it alone; an empty field is not
    given. Other columns are ignored, unless they look like a slip of the pen.

    Raises
    ------
    SettingsError
    """
    try:
        text = text_of(path, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read as a CSV table ({in_words(error)})") from error
    header = text.splitlines()[0] if text.strip() else ""
    rows = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=header.count))
    try:
        columns = {column: column.strip().lower().replace("-", "_") for column in rows.fieldnames or ()}
    except csv.Error as error:
        raise SettingsError(f"{path}, line 1: cannot be read as a CSV table ({in_words(error)})") from error
    if "path" not in columns.values():
        raise SettingsError(f"{path}: no column path; found {', '.join(columns) or 'nothing'}")
    known = _kinds()
    for column in columns.values():
        if column not in known and (near := difflib.get_close_matches(column, known, 1, 0.8)):
            raise SettingsError(f"{path}: unknown column {column!r}; did you mean {near[0]!r}?")
    try:
        lines = [(rows.line_num, row) for row in rows if any(row.values())]
    except csv.Error as error:
        raise SettingsError(
            f"{path}, line {rows.line_num + 1}: cannot be read as a CSV table ({in_words(error)})"
        ) from error
    if not lines:
        raise SettingsError(f"{path}: names no slide; expected a line for each below the header")
    return [_row(path, number, row, columns, known) for number, row in lines]


def _row(
    table: Path, number: int, row: Mapping[str, Any], columns: Mapping[str, str], known: Mapping[str, type[Any]]
) -> Entry:
    """Return the slide of line *number*."""
    values: dict[str, Any] = {}
    for column, name in columns.items():
        text = (row[column] or "").strip()
        if text and name in known:
            values[name] = _value(text, known[name], f"{table}, line {number}: {column}")
    source, name = values.pop("path", ""), values.pop("name", "")
    if not source:
        raise SettingsError(f"{table}, line {number}: no path")
    if "\0" in source:
        raise SettingsError(f"{table}, line {number}: path is {source!r}; expected the path of a slide")
    parts = PurePosixPath(name).parts
    if name and (not parts or PurePosixPath(name).is_absolute() or ".." in parts or not name.isprintable()):
        raise SettingsError(
            f"{table}, line {number}: name is {name!r}; expected a relative path below the output folder"
        )
    return Entry(source if "://" in source else str(table.parent / source), name, values)


def _kinds() -> dict[str, type[Any]]:
    """Return the type of every column that means something."""
    kinds: dict[str, type[Any]] = {"path": str, "name": str, "model": str, "bounds": tuple}
    for cls in SECTIONS.values():
        for name, hint in typing.get_type_hints(cls).items():
            kinds[name] = next((arg for arg in typing.get_args(hint) if arg is not type(None)), hint)
    return kinds


def _value(text: str, kind: type[Any], where: str) -> Any:
    """Return a field's text as a value of its *kind*."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        if kind is bool:
            return words[text.lower()]
        if kind is tuple:
            x0, y0, x1, y1 = (int(part) for part in text.replace(";", ",").replace(" ", ",").split(",") if part)
            return x0, y0, x1, y1
        return kind(text)
    except (ValueError, KeyError) as error:
        words_of = {bool: "true or false", tuple: "four whole numbers x0 y0 x1 y1", int: "a whole number"}
        raise SettingsError(f"{where} is {text!r}; expected {words_of.get(kind, 'a number')}") from error
