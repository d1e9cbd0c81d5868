"""The sheet that named the slides of a batch: what it says of each, for tables of results."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsipipe.errors import SettingsError
from wsipipe.segmentation.slides import list_slides, read_table

OWN = ("slide", "region", "classification", "kind", "parent", "area_mm2", "cells", "fields", "intervals", "geometry")
"""Columns of a summary that a sheet may not have too."""


@dataclass
class Sheet:
    """Lines of a sheet by the name of the slide's results, and by the slide's path.

    Attributes
    ----------
    unused : list of str
        Names of slides that nobody has asked for yet.
    """

    columns: tuple[str, ...]
    by_name: dict[str, dict[str, Any]]
    by_path: dict[str, str]
    unused: list[str] = field(default_factory=list)


def read_sheet(path: Path, tell: Callable[[str], None]) -> Sheet:
    """Return what the CSV table at *path*, as ``wsipipe segment`` takes it, says of each slide.

    Raises
    ------
    SettingsError
        When it is no such table, or a column has a name that summaries use.
    """
    entries = read_table(path)
    text = path.read_text(encoding="utf-8-sig")
    header = text.splitlines()[0]
    rows = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=header.count))
    columns = tuple(column.strip() for column in rows.fieldnames or ())
    clash = [column for column in columns if column in OWN]
    if clash:
        raise SettingsError(f"--sheet {path}: column {clash[0]!r} is also one of the summary's; rename it in the sheet")
    lines = [[(row[c] or "").strip() for c in rows.fieldnames or ()] for row in rows if any(row.values())]
    typed = [_numbers(values) for values in zip(*lines)]
    named = {entry.source: entry.name for entry in list_slides((str(path),))}
    sheet = Sheet(columns, {}, {})
    for k, entry in enumerate(entries):
        name = entry.name or named[entry.source]
        if name in sheet.by_name:
            tell(f"warning: {path}: {name} stands there more than once; its first line counts")
            continue
        sheet.by_name[name] = {column: values[k] for column, values in zip(columns, typed)}
        sheet.by_path.setdefault(os.path.abspath(entry.source), name)
        sheet.unused.append(name)
    return sheet


def columns_of(sheet: Sheet, name: str, slide: str) -> dict[str, Any]:
    """Return what *sheet* says of the results *name* of *slide*.

    Raises
    ------
    SettingsError
        When it says nothing of them.
    """
    found = name if name in sheet.by_name else sheet.by_path.get(os.path.abspath(slide) if slide else "")
    if found is None:
        raise SettingsError(f"--sheet has no line for {name}; expected one whose name or path is that of its slide")
    if found in sheet.unused:
        sheet.unused.remove(found)
    return sheet.by_name[found]


def _numbers(values: Sequence[str]) -> list[Any]:
    """Return a column as numbers where all that is there is one, written plainly; "007" is a name, as 20 digits are."""
    for kind in (int, float):
        try:
            if all(str(kind(v)) == v and abs(kind(v)) < 1 << 63 for v in values if v):
                return [kind(v) if v else None for v in values]
        except ValueError:
            continue
    return [v or None for v in values]
