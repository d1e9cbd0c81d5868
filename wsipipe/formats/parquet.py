"""The master file: all cells of a slide as GeoParquet 1.1.

Blocks leave *parts* (Arrow files whose rows are sorted into output bins of the slide), and :func:`merge_parts` reads
them bin by bin. Bins, rows and metadata follow the slide alone, so every way of cutting the work into blocks gives the
same bytes, and memory is that of one bin.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from wsipipe.artifacts import atomic_write, canonical_json
from wsipipe.formats.colours import class_colours
from wsipipe.formats.master import OPEN, SEAL, check_master, seal, vouch
from wsipipe.formats.parts import BIN_PX, read_parts, write_part
from wsipipe.formats.table import KEYS, cells_table

MASTER = ".parquet"
"""Ending of the file of a slide's cells that all others are made of."""

if TYPE_CHECKING:
    import geopandas

__all__ = [
    "BIN_PX",
    "CellWriter",
    "batches",
    "cells_table",
    "geo_metadata",
    "merge_parts",
    "metadata",
    "read_cells",
    "row_groups",
    "write_part",
]

_REQUIRED = ("fingerprint", "size", "bounds", "mpp", "mpp_source")


def merge_parts(
    parts: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    bin_px: int = BIN_PX,
) -> int:
    """Merge *parts* into the master file *out*, atomically, and return its number of cells.

    The same cells and *metadata* give the same bytes, however they are spread over parts and whatever the order of
    these. Memory is that of one bin's cells.

    Parameters
    ----------
    parts : sequence of paths
        From :func:`write_part`, at least one; parts without cells count.
    out : path
    metadata : mapping
        See :class:`CellWriter`.
    bin_px : int
        Side of a bin in grid pixels, as in the parts.

    Raises
    ------
    StoreError
        When a part is unreadable or does not go with the others, or a cell comes twice.
    OutputError
    """
    schema, bins = read_parts(parts, bin_px)
    with CellWriter(out, schema, metadata) as writer:
        for rows in bins:
            writer.write(rows)
    return writer.cells


class CellWriter(contextlib.AbstractContextManager["CellWriter"]):
    """Writes the master file, one row group after the other; it appears when the context ends well.

    Parameters
    ----------
    path : path
    schema : pyarrow.Schema
        Of the tables to come (without :data:`~wsipipe.formats.table.KEYS`, which are left out).
    metadata : mapping
        What the file says of itself under the key ``wsipipe``, in JSON. Must hold ``fingerprint``, ``size``,
        ``bounds`` (or None), ``mpp`` and ``mpp_source`` of the slide; ``classes`` names the classes or maps
        them to (r, g, b); ``tissue_area_um2`` adds ``cells_per_mm2``. Counts of cells are added.

    Attributes
    ----------
    cells : int
        Rows written so far.

    Raises
    ------
    OutputError
    ValueError
        When *metadata* lacks something.
    """

    def __init__(self, path: str | os.PathLike[str], schema: pa.Schema, metadata: Mapping[str, Any]) -> None:
        missing = [key for key in _REQUIRED if key not in metadata]
        if missing:
            raise ValueError(f"the metadata of {os.fspath(path)} lacks {', '.join(missing)}")
        names = [name for name in schema.names if name not in KEYS]
        self._schema = pa.schema([schema.field(name) for name in names])
        self._path, self._metadata = path, dict(metadata)
        self._stack = contextlib.ExitStack()
        self._classes: Counter[str] = Counter()
        self._oversize = 0
        self._bbox: list[float] | None = None
        self.cells = 0

    def __enter__(self) -> Self:
        self._file = self._stack.enter_context(atomic_write(self._path))
        self._writer = pq.ParquetWriter(self._file, self._schema, **_encoding(self._schema))
        self._stack.push(self._finish)
        return self

    def write(self, table: pa.Table) -> None:
        """Append *table* as one row group; an empty one is left out."""
        if not table.num_rows:
            return
        self._count(table)
        self._writer.write_table(table.select(self._schema.names), row_group_size=table.num_rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if error is None:
            vouch(self._path)

    def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the footer; of a file that is thrown away, whatever of it can be written."""
        if error is None:
            self._writer.add_key_value_metadata(self._footer())
            self._writer.close()
            self._file.flush()
            with open(self._file.name, "r+b") as file:
                seal(file)
        else:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _count(self, table: pa.Table) -> None:
        """Add *table* to the counts and the bounding box of the file."""
        self.cells += table.num_rows
        self._oversize += pc.sum(table["oversize"]).as_py() or 0
        for entry in pc.value_counts(table["class"].combine_chunks()).to_pylist():
            self._classes[entry["values"] or ""] += entry["counts"]
        box = table["bbox"].combine_chunks()
        low = [pc.min(box.field(name)).as_py() for name in ("xmin", "ymin")]
        high = [pc.max(box.field(name)).as_py() for name in ("xmax", "ymax")]
        if self._bbox is not None:
            low = [min(a, b) for a, b in zip(low, self._bbox[:2], strict=True)]
            high = [max(a, b) for a, b in zip(high, self._bbox[2:], strict=True)]
        self._bbox = low + high

    def _footer(self) -> dict[str, bytes]:
        """Return the file's own metadata: ``geo`` (GeoParquet) and ``wsipipe``."""
        ours: dict[str, Any] = {"format": 1} | self._metadata | {"cells": self.cells, "oversize": self._oversize}
        ours["classes"] = class_colours(dict.fromkeys(filter(None, self._classes)) | _stated(self._metadata))
        ours["cells_by_class"] = {name: count for name, count in self._classes.items() if name}
        area = self._metadata.get("tissue_area_um2")
        if area:
            ours["cells_per_mm2"] = self.cells / (area * 1e-6)
        return {
            "geo": canonical_json(geo_metadata(self._schema.names, self._bbox)),
            "wsipipe": canonical_json(ours | {SEAL: OPEN}),
        }


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a master file says of itself (see :class:`CellWriter`), once all that is in it has been checked.

    Raises
    ------
    StoreError
        When *path* is not a master file of wsipipe.
    """
    return check_master(path)


def read_cells(
    path: str | os.PathLike[str], box_base: tuple[float, float, float, float] | None = None
) -> geopandas.GeoDataFrame:
    """Return the cells of a master file, with its metadata in ``.attrs["wsipipe"]``.

    Parameters
    ----------
    path : path
    box_base : (x0, y0, x1, y1), optional
        Only cells whose bounding box meets this one, in base pixels; other row groups are not read.

    Returns
    -------
    geopandas.GeoDataFrame
        Columns as in ``docs/outputs.md``; geometry in base pixels, no CRS.

    Raises
    ------
    StoreError
        When *path* is not a master file of wsipipe.
    """
    import geopandas

    about = metadata(path)
    frame = geopandas.read_parquet(path, bbox=box_base)
    frame.attrs["wsipipe"] = about
    return frame


def row_groups(path: str | os.PathLike[str]) -> Iterator[pa.Table]:
    """Yield the row groups of a master file, one after the other."""
    with pq.ParquetFile(path) as file:
        for i in range(file.num_row_groups):
            yield file.read_row_group(i)


def _stated(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes that metadata names, with their colours where it states these."""
    classes = about.get("classes") or {}
    return dict(classes) if isinstance(classes, Mapping) else dict.fromkeys(classes)


def batches(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    box_base: tuple[float, float, float, float] | None = None,
    rows: int = 16384,
) -> Iterator[pa.RecordBatch]:
    """Yield *columns* of a master file, up to *rows* cells at a time, in bounded memory.

    With *box_base* only cells whose bounding box meets it, in base pixels.
    """
    inside = None
    if box_base is not None:
        x0, y0, x1, y1 = box_base
        inside = (pc.field("bbox", "xmin") <= x1) & (pc.field("bbox", "xmax") >= x0)
        inside &= (pc.field("bbox", "ymin") <= y1) & (pc.field("bbox", "ymax") >= y0)
    found = ds.dataset(os.fspath(path), format="parquet").scanner(
        columns=list(columns), filter=inside, batch_size=rows, batch_readahead=2, fragment_readahead=1
    )
    yield from (batch for batch in found.to_batches() if batch.num_rows)


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """Return the ParquetWriter options that fix how columns are stored."""
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": ["class"],
        "use_byte_stream_split": floats,
        "store_schema": True,
    }


def geo_metadata(names: Sequence[str], bbox: Sequence[float] | None, covering: bool = True) -> dict[str, Any]:
    """Return the GeoParquet 1.1 metadata of a file with the columns *names*; *covering*: with a column ``bbox``."""
    polygon: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None, "edges": "planar"}
    sides = {"covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}}}
    main = polygon | (sides if covering else {}) | ({"bbox": list(bbox)} if bbox else {})
    columns = {"geometry": main} | ({"nucleus": polygon} if "nucleus" in names else {})
    return {"version": "1.1.0", "primary_column": "geometry", "columns": columns}
