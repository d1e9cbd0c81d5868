"""A table of cells in the Zarr layout of AnnData, written row group by row group."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from wsipipe.formats.colours import class_colours
from wsipipe.formats.columns import measurement_names, plain_names
from wsipipe.formats.parquet import metadata, row_groups
from wsipipe.formats.table import class_codes

ROWS = 65536
"""Rows per chunk."""
CENTRE = ("x", "y")


def write_anndata(
    parent: zarr.Group,
    name: str,
    master: str | os.PathLike[str],
    region: Mapping[str, str],
    texts: Mapping[str, str],
) -> zarr.Group:
    """Write the cells of *master* as the AnnData *name* under *parent*, and return its group.

    X (float32) has the measurements, obs the identity, class and flags, ``obsm["spatial"]`` the centroid in base
    pixels, uns *texts*, as ``class_colors`` the colours of the classes (as scanpy has them), and, as
    ``spatialdata_attrs``, *region*.
    """
    schema, count = pq.read_schema(master), pq.read_metadata(master).num_rows
    group = _group(parent, name, "anndata")
    names = measurement_names(schema)
    _strings(_group(group, "var", "dataframe", columns=[]), "_index", names)
    for part in ("layers", "obsp", "varm", "varp"):
        _group(group, part, "dict")
    uns = _group(group, "uns", "dict")
    attributes = _group(uns, "spatialdata_attrs", "dict")
    for target, pairs in ((uns, texts), (attributes, region)):
        for key, text in pairs.items():
            _text(target, key, text)
    colours = class_colours(metadata(master).get("classes") or {})
    if colours:
        _strings(uns, "class_colors", [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours.values()])
    obsm = _group(group, "obsm", "dict")
    x = _array(group, "X", (count, len(names)), "float32")
    spatial = _array(obsm, "spatial", (count, 2), "float64")
    columns = _Observations(group, master, region["region"])
    start = 0
    for table in _chunked(master):
        stop = start + table.num_rows
        x[start:stop] = _matrix(table, names, np.float32)
        spatial[start:stop] = _matrix(table, CENTRE, np.float64)
        columns.write(table, start, stop)
        start = stop
    return group


class _Observations:
    """The table ``obs``: identity, region, class, and the other columns that are no measurements."""

    def __init__(self, group: zarr.Group, master: str | os.PathLike[str], region: str) -> None:
        schema, count = pq.read_schema(master), pq.read_metadata(master).num_rows
        self._classes = list(metadata(master).get("classes") or {})
        taken = {"cell_id", "class", *CENTRE, *measurement_names(schema)}
        self._flags = [name for name in plain_names(schema) if name not in taken and _flag(schema.field(name).type)]
        obs = _group(group, "obs", "dataframe", columns=["cell_id", "region", "class", *self._flags])
        self._ids = [_array(obs, name, (count,), str) for name in ("_index", "cell_id")]
        self._codes = _categorical(obs, "class", self._classes, count)
        _categorical(obs, "region", [region], count)
        self._arrays = {name: _array(obs, name, (count,), _kind(schema.field(name).type)) for name in self._flags}

    def write(self, table: pa.Table, start: int, stop: int) -> None:
        """Write rows *start* to *stop*."""
        ids = table["cell_id"].to_numpy().astype(np.dtypes.StringDType())
        for array in self._ids:
            array[start:stop] = ids
        codes = class_codes(table["class"].combine_chunks(), self._classes)
        self._codes[start:stop] = np.where(codes < len(self._classes), codes, -1)
        for name, array in self._arrays.items():
            array[start:stop] = table[name].to_numpy()


def _chunked(master: str | os.PathLike[str]) -> Any:
    """Yield the rows of *master* in tables of :data:`ROWS`, so that every chunk is written once."""
    held: list[pa.Table] = []
    for group in row_groups(master):
        held.append(group)
        while sum(table.num_rows for table in held) >= ROWS:
            joined = pa.concat_tables(held)
            yield joined.slice(0, ROWS)
            held = [joined.slice(ROWS)]
    if sum(table.num_rows for table in held):
        yield pa.concat_tables(held)


def _matrix(table: pa.Table, names: Sequence[str], dtype: Any) -> NDArray[Any]:
    if not names:
        return np.zeros((table.num_rows, 0), dtype)
    return np.column_stack([table[name].to_numpy() for name in names]).astype(dtype)


def _group(parent: zarr.Group, name: str, kind: str, columns: Sequence[str] | None = None) -> zarr.Group:
    version = "0.2.0" if kind in ("dataframe", "categorical") else "0.1.0"
    attributes: dict[str, Any] = {"encoding-type": kind, "encoding-version": version}
    if columns is not None:
        attributes |= {"column-order": list(columns), "_index": "_index"}
    return parent.create_group(name, attributes=attributes)


def _array(parent: zarr.Group, name: str, shape: tuple[int, ...], dtype: Any) -> zarr.Array[Any]:
    kind = "string-array" if dtype is str else "array"
    chunks = (min(ROWS, max(1, shape[0])), *(max(1, n) for n in shape[1:]))
    attributes: dict[str, Any] = {"encoding-type": kind, "encoding-version": "0.2.0"}
    return parent.create_array(name, shape=shape, chunks=chunks, dtype=dtype, attributes=attributes)


def _strings(parent: zarr.Group, name: str, values: Sequence[str]) -> None:
    array = _array(parent, name, (len(values),), str)
    if values:
        array[:] = np.array(values, np.dtypes.StringDType())


def _text(parent: zarr.Group, name: str, value: str) -> None:
    attributes: dict[str, Any] = {"encoding-type": "string", "encoding-version": "0.2.0"}
    array = parent.create_array(name, shape=(), dtype=str, attributes=attributes)
    array[...] = np.array(value, np.dtypes.StringDType())


def _categorical(parent: zarr.Group, name: str, categories: Sequence[str], count: int) -> zarr.Array[Any]:
    """Create a categorical column (all of the first category) and return its codes."""
    group = _group(parent, name, "categorical")
    group.attrs["ordered"] = False
    _strings(group, "categories", categories)
    return _array(group, "codes", (count,), "int16")


def _flag(kind: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(kind) or pa.types.is_integer(kind))


def _kind(kind: pa.DataType) -> str:
    return "bool" if pa.types.is_boolean(kind) else "int64"
