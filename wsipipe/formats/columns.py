"""Columns of the master file as other formats take them: numbers and names, without shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from wsipipe.stain.unmix import key_of

SHAPES = ("geometry", "nucleus", "bbox")
"""Columns that hold shapes."""


QUPATH = re.compile(r"(nucleus|cytoplasm|cell)_(.+)_od_(mean|max|p\d0)")
"""Columns of a stain in a compartment (:mod:`wsipipe.cells.compartments`)."""


def qupath_name(column: str, stains: Mapping[str, str] | None) -> str:
    """Return what QuPath calls the measurement of a *column*: "Nucleus: DAB OD mean" of nucleus_dab_od_mean.

    *stains* are what the file says of its stain vectors; other columns keep their names.
    """
    found = QUPATH.fullmatch(column)
    if not found:
        return column
    compartment, stain, statistic = found.groups()
    named = {key_of(name): name for key, name in (stains or {}).items() if key.startswith("Stain ")}
    return f"{compartment.capitalize()}: {named.get(stain, stain.capitalize())} OD {statistic}"


def plain_names(schema: pa.Schema) -> list[str]:
    """Return the names of the columns that hold no shape, in order."""
    return [name for name in schema.names if name not in SHAPES]


def measurement_names(schema: pa.Schema) -> list[str]:
    """Return the names of the measurements: numbers that are no coordinates."""
    return [f.name for f in schema if pa.types.is_floating(f.type) and f.name not in ("x", "y")]


def flag_names(schema: pa.Schema) -> list[str]:
    """Return the names of the columns that say yes or no of a cell, such as ``oversize``."""
    return [f.name for f in schema if pa.types.is_boolean(f.type)]


def numbers(rows: pa.Table | pa.RecordBatch, names: Sequence[str], decimals: int) -> NDArray[np.float64]:
    """Return the columns *names* as (rows, names), rounded; flags as 0 and 1."""
    columns = [rows[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in names]
    return np.round(np.column_stack(columns), decimals)


def plain_columns(table: pa.Table, about: dict[str, Any]) -> pa.Table:
    """Return the columns of *table* without shapes, with the centroid in µm (``x_um``, ``y_um``) after that in px."""
    names = plain_names(table.schema)
    columns = {name: table[name] for name in names}
    place = names.index("y") + 1
    scaled = (pc.multiply(table[axis], float(about["mpp"][i])) for i, axis in enumerate("xy"))
    microns = {f"{axis}_um": pc.round(column, 4) for axis, column in zip("xy", scaled)}
    ordered = [*names[:place], *microns, *names[place:]]
    return pa.table({name: columns.get(name, microns.get(name)) for name in ordered})
