"""Cores of a microarray as people name and correct them: a sheet, or a GeoJSON file edited in QuPath."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import shapely

from wsipipe.analysis.tma import Cores, DrawnCore, find_cores, letters, place_of
from wsipipe.artifacts.plain import text_of
from wsipipe.errors import SettingsError, in_words
from wsipipe.formats.annotations import Annotation
from wsipipe.formats.imported import SUFFIXES, read_drawn
from wsipipe.geometry import qupath_origin
from wsipipe.slide import Slide
from wsipipe.units import Pair

CORE_CLASS, TORN_CLASS, MISSING_CLASS = "TMA core", "TMA core: torn", "TMA core: missing"
"""Classes by which QuPath shows what a core is."""
CLASSES = {
    "whole": (CORE_CLASS, (0, 150, 60)),
    "torn": (TORN_CLASS, (235, 130, 0)),
    "missing": (MISSING_CLASS, (220, 30, 30)),
}
NUMBERS = ("confidence", "tissue_share", "tissue_um2", "pieces", "diameter_um")
"""Columns of the table of cores that QuPath shows as measurements."""
OWN = ("core", "row", "column", "name", "missing")
"""Columns of a sheet with a meaning; others are carried along."""
YES = ("1", "true", "yes", "y", "x", "missing")


def read_drawn_cores(path: Path, about: Mapping[str, Any]) -> list[DrawnCore]:
    """Return the cores in a GeoJSON file, as `wsipipe tma` writes and QuPath edits it.

    Annotations and TMA cores with an area count, in the order of the file. One without a name is called ``Core 1``, ...

    Parameters
    ----------
    path : path
    about : mapping
        ``size`` and ``bounds`` of the slide.

    Raises
    ------
    StoreError
        When *path* is not GeoJSON.
    SettingsError
        When it holds no core, two of one name, or one outside the slide.
    """
    canvas = shapely.box(0, 0, *about["size"])
    found = read_drawn(path, qupath_origin(about["size"], about["bounds"]))
    objects = [d for d in found if d.role in ("annotation", "tma_core") and shapely.area(d.shape) > 0]
    if not objects:
        raise SettingsError(
            f"--names {path}: no core in it; expected annotations with an area, as `wsipipe tma` writes"
        )
    cores: dict[str, DrawnCore] = {}
    for k, d in enumerate(objects, 1):
        name = d.name.strip() or f"Core {k}"
        if name in cores:
            raise SettingsError(f"--names {path}: two cores are called {name!r}; expected each name once")
        shape = shapely.intersection(d.shape, canvas)
        if shapely.area(shape) == 0:
            raise SettingsError(
                f"--names {path}: core {name!r} lies outside the slide ({about['size'][0]} x {about['size'][1]} px); "
                "expected level-0 pixels of this slide"
            )
        cores[name] = DrawnCore(name, shape, d.kind == MISSING_CLASS)
    return list(cores.values())


def with_sheet(cores: Cores, path: Path, tell: Callable[[str], None]) -> Cores:
    """Return *cores* named by a CSV sheet, with its other columns carried along.

    The sheet has a column ``core`` (A-1, ...), or ``row`` and ``column``, and may have ``name`` and ``missing``. Names
    need not differ: cores of one patient often share theirs. Cores that the sheet leaves out keep their names.

    Raises
    ------
    SettingsError
        When it cannot be read, has no such column, or names a core twice or one that is not there.
    """
    rows = _read(path)
    columns = list(rows[0]) if rows else []
    if "core" not in columns and not {"row", "column"} <= set(columns):
        said = ", ".join(columns) or "nothing"
        raise SettingsError(f"--names {path}: its columns are {said}; expected core (as A-1), or row and column")
    places = dict(zip(zip(cores.table["row"], cores.table["column"]), cores.table.index))
    table, named = cores.table.copy(), set()
    extra = [c for c in columns if c not in OWN]
    clash = [c for c in extra if c in table.columns]
    if clash:
        raise SettingsError(f"--names {path}: column {clash[0]!r} is one that cores have already; rename it")
    for c in extra:
        table[c] = ""
    for line, row in enumerate(rows, 2):
        place = _place(row, f"--names {path}, line {line}")
        k = places.get((letters(place[0]), place[1] + 1))
        if k is None or k in named:
            shown, size = f"{letters(place[0])}-{place[1] + 1}", _size(cores)
            why = "stands there twice" if k in named else f"is not among the cores found ({size})"
            raise SettingsError(f"--names {path}, line {line}: core {shown} {why}; expected each core of the grid once")
        named.add(k)
        table.loc[k, ["name", *extra]] = [row.get("name") or table.at[k, "name"], *(row[c] for c in extra)]
        if row.get("missing", "").lower() in YES:
            table.loc[k, ["status", "missing"]] = ["missing", True]
    if len(named) < len(table):
        tell(f"warning: {path} names {len(named)} of {len(table)} cores; the others keep their names")
    return dataclasses.replace(cores, table=table)


def _read(path: Path) -> list[dict[str, str]]:
    """Return the lines of a CSV file by column."""
    try:
        text = text_of(path, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--names {path}: cannot be read ({in_words(error)}); expected a CSV file or GeoJSON"
        ) from error
    lines = text.splitlines()
    if not lines:
        raise SettingsError(f"--names {path}: is empty; expected a CSV file with a column core")
    reader = csv.DictReader(lines, delimiter=max(",;\t", key=lines[0].count))
    try:
        reader.fieldnames = [
            name.strip().lower() if name.strip().lower() in OWN else name for name in reader.fieldnames or ()
        ]
        return [{k: (v or "").strip() for k, v in row.items() if k} for row in reader if any(row.values())]
    except csv.Error as error:
        where = f"--names {path}, line {reader.line_num + 1}"
        raise SettingsError(
            f"{where}: cannot be read as a CSV table ({in_words(error)}); expected short values"
        ) from error


def _place(row: Mapping[str, str], where: str) -> tuple[int, int]:
    """Return row and column, from 0, that a line of a sheet names."""
    said = row["core"] if row.get("core") else f"{row.get('row', '')}-{row.get('column', '')}"
    place = place_of(said)
    if place is None:
        raise SettingsError(f"{where}: core {said!r}; expected a row and a column as in A-1")
    return place


def _size(cores: Cores) -> str:
    return f"rows A to {cores.table['row'].iloc[-1]}, columns 1 to {cores.table['column'].max()}"


def cores_of(slide: Slide, base_mpp: Pair, names: Path | None, tell: Callable[[str], None]) -> Cores:
    """Return the cores on *slide*, found, then named by a sheet; or as a GeoJSON file has them."""
    about = {"size": slide.info.size, "bounds": slide.info.bounds}
    drawn = names is not None and names.name.lower().endswith(SUFFIXES)
    cores = find_cores(slide, base_mpp, read_drawn_cores(names, about) if names is not None and drawn else ())
    for line in cores.warnings:
        tell(f"warning: {line}")
    return cores if names is None or drawn else with_sheet(cores, names, tell)


def core_annotations(cores: Cores) -> list[Annotation]:
    """Return the cores as annotations for QuPath, by row and column."""
    return [
        Annotation(
            str(row["name"]),
            *CLASSES[str(row["status"])],
            row["geometry"],
            {name: float(row[name]) for name in NUMBERS},
        )
        for row in cores.table.to_dict("records")
    ]
