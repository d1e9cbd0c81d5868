"""Labelled cells of cells files, as a classifier learns from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsipipe.analysis.classify.examples import Examples
from wsipipe.errors import SettingsError
from wsipipe.formats.columns import measurement_names
from wsipipe.formats.labelled import Labels
from wsipipe.formats.parquet import metadata, row_groups
from wsipipe.settings import MeasureSettings, determining

NOT_COMPARABLE = ("probability", "class_probability")
"""Measurements of the model rather than of the cell."""


def examples_of(read: Sequence[tuple[Path, Labels]], columns: Sequence[str]) -> Examples:
    """Return the labelled cells of several master files.

    Raises
    ------
    SettingsError
        When there are none.
    """
    found = Examples.none(columns)
    for cells, labels in read:
        about = metadata(cells)
        for table in row_groups(cells):
            kinds = labels.of(table)
            rows = [i for i, kind in enumerate(kinds) if kind]
            if rows:
                found = found.joined(labelled(table.take(rows), [kinds[i] for i in rows], columns, about))
    if not len(found):
        raise SettingsError("none of the labels meets a cell; are they of these cells, or of another slide?")
    return found


def labelled(table: pa.Table, kinds: Sequence[str], columns: Sequence[str], about: Mapping[str, Any]) -> Examples:
    """Return the cells of *table* with their classes *kinds*; *about* is the metadata of their file."""
    slides = (str(about["fingerprint"]),) * table.num_rows
    cells = tuple(table["cell_id"].to_pylist())
    xy_um = matrix(table, ("x", "y")) * np.array(about["mpp"])
    return Examples(tuple(columns), matrix(table, columns), tuple(kinds), slides, cells, xy_um)


def columns_of(files: Sequence[Path], asked: str) -> tuple[str, ...]:
    """Return the measurements to use: those *asked* for, separated by commas, or all that every file has."""
    each = [set(measurement_names(pq.read_schema(path))) - set(NOT_COMPARABLE) for path in files]
    common = set.intersection(*each)
    wanted = [name.strip() for name in asked.split(",") if name.strip()]
    for name in wanted:
        if name not in common:
            raise SettingsError(f"--columns: not all cells have {name!r}; they have {', '.join(sorted(common))}")
    first = measurement_names(pq.read_schema(files[0]))
    return tuple(wanted or (name for name in first if name in common))


def measured_alike(files: Sequence[Path]) -> dict[str, Any] | None:
    """Return how the cells of all *files* were measured anew, None where `wsipipe segment` measured them.

    Raises
    ------
    SettingsError
        When they were measured in different ways, and cannot be compared.
    """
    ways = [how_measured(metadata(path)) for path in files]
    for path, way in zip(files[1:], ways[1:]):
        if way != ways[0]:
            raise SettingsError(
                f"cells of {files[0]} and {path} were not measured alike ({_told(ways[0])}; {_told(way)}); measure "
                "them with the same options of `wsipipe measure`"
            )
    return ways[0]


def how_measured(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return with which settings of :class:`MeasureSettings` cells were measured anew; None where they were not."""
    told = about.get("measured")
    if not isinstance(told, Mapping):
        return None
    return {name: told.get(name, default) for name, default in determining(MeasureSettings()).items()}


def matrix(table: pa.Table, columns: Sequence[str]) -> NDArray[np.float64]:
    """Return *columns* of *table* as float64 (n, d)."""
    return np.column_stack([table[name].to_numpy().astype(np.float64) for name in columns])


def _told(way: Mapping[str, Any] | None) -> str:
    return "by segment" if way is None else ", ".join(f"{k} {v}" for k, v in way.items() if v not in ("", None))
