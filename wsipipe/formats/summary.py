"""Numbers of regions as tables (Parquet, CSV, Excel) and as annotations for QuPath."""

from __future__ import annotations

import datetime
import io
import math
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from wsipipe.artifacts import atomic_path, atomic_write, canonical_json
from wsipipe.errors import MissingDependency, OutputError
from wsipipe.formats.annotations import Annotation, feature_of, in_qupath, write_features
from wsipipe.formats.colours import NO_CLASS, Rgb, class_colours

Row = Mapping[str, Any]
GEOMETRY = "geometry"
"""Column of a row that holds its shape in base pixels, or None; only .parquet and .geojson keep it."""
HIDDEN = ("id", "colour")
"""Columns that only GeoJSON has a use for."""
TEXTS = ("slide", "region", "classification", "kind", "parent", "intervals")
EPOCH = datetime.datetime(1980, 1, 1)
"""Time of all that an Excel file dates, so that its bytes do not depend on when it was made."""
NAMESPACE = uuid.UUID("3c0c1f0e-52a6-5d0e-8f6b-0a2a6f6f9b11")


def write_summary(path: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Write *rows* in the format that the ending of *path* means; the same rows give the same bytes.

    Parameters
    ----------
    path : Path
        .parquet (GeoParquet), .csv, .xlsx or .geojson.
    rows : sequence of mapping
        One for each slide and region; a column that a row lacks is empty there.
    about : mapping
        ``size``, ``bounds`` and ``fingerprint`` of the slide, for GeoJSON; of a table, what it says of itself.

    Raises
    ------
    OutputError, MissingDependency
    """
    WRITERS[ending_of(path)](path, rows, about)


def ending_of(path: Path) -> str:
    """Return the ending of *path*, one of those that can be written.

    Raises
    ------
    OutputError
    """
    for ending in WRITERS:
        if path.name.endswith(ending):
            return ending
    raise OutputError(f"{path}: a summary is a {', '.join(WRITERS)}; give a name that ends so")


def check_excel() -> None:
    """Raise MissingDependency when no Excel file can be written."""
    try:
        import openpyxl  # noqa: F401
    except ImportError as error:
        raise MissingDependency.of("openpyxl", "xlsx", "a .xlsx file") from error


def table_of(rows: Sequence[Row]) -> pd.DataFrame:
    """Return *rows* as a table without shapes: columns in the order in which the rows first have them."""
    names = list(dict.fromkeys(name for row in rows for name in row if name not in (GEOMETRY, *HIDDEN)))
    return pd.DataFrame({name: _column(name, [row.get(name) for row in rows]) for name in names})


def _column(name: str, values: Sequence[Any]) -> pd.Series[Any]:
    kept = [None if isinstance(v, float) and math.isnan(v) else v for v in values]
    present = [v for v in kept if v is not None]
    if name in TEXTS or any(isinstance(v, str) for v in present):
        return pd.Series([None if v is None else str(v) for v in kept], dtype=object)
    whole = bool(present) and all(isinstance(v, int | np.integer) for v in present)
    return pd.Series(kept, dtype="Int64" if whole else "float64")


def _write_parquet(path: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    table = pa.Table.from_pandas(table_of(rows), preserve_index=False)
    shapes = np.array([row.get(GEOMETRY) for row in rows] or [None], object)[: len(rows)]
    table = table.append_column(GEOMETRY, pa.array(shapely.to_wkb(shapes), pa.binary()))
    kinds = sorted({shape.geom_type for shape in shapes if shape is not None})
    column = {"encoding": "WKB", "geometry_types": kinds, "crs": None, "edges": "planar"}
    geo = {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
    extra = {b"geo": canonical_json(geo), b"wsipipe.summary": canonical_json({"format": 1} | dict(about))}
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(extra), temporary, compression="zstd", compression_level=1)


def _write_csv(path: Path, rows: Sequence[Row], _about: Mapping[str, Any]) -> None:
    with atomic_write(path, "w") as file:
        table_of(rows).to_csv(file, index=False, lineterminator="\n")


def _write_excel(path: Path, rows: Sequence[Row], _about: Mapping[str, Any]) -> None:
    check_excel()
    raw = io.BytesIO()
    with pd.ExcelWriter(raw, engine="openpyxl") as writer:
        table_of(rows).to_excel(writer, sheet_name="regions", index=False, freeze_panes=(1, 2))
        writer.book.properties.created = writer.book.properties.modified = EPOCH
    with atomic_write(path) as file, zipfile.ZipFile(raw) as made, zipfile.ZipFile(file, "w") as kept:
        for name in sorted(made.namelist()):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            kept.writestr(entry, _undated(made.read(name)), zipfile.ZIP_DEFLATED)


def _undated(part: bytes) -> bytes:
    """Return a part of an Excel file with :data:`EPOCH` in place of the time at which it was made."""
    import re

    stamp = EPOCH.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    return re.sub(rb"(<dcterms:(?:created|modified)[^>]*>)[^<]*", rb"\g<1>" + stamp, part)


def _write_geojson(path: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    colours = class_colours({row["classification"]: row.get("colour") for row in rows if row["classification"]})
    write_features(path, [_feature(row, colours, about) for row in rows if row.get(GEOMETRY)])


def _feature(row: Row, colours: Mapping[str, Rgb], about: Mapping[str, Any]) -> bytes:
    """Return one annotation with its numbers as measurements."""
    shape, kind = in_qupath(row[GEOMETRY], about), row["classification"]
    name = f"{about['fingerprint']}:{row['region']}:{shapely.to_wkb(shape, hex=True)}"
    numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and k not in HIDDEN}
    area = Annotation(row["region"], kind or "", colours.get(kind, NO_CLASS), shape, numbers)
    return feature_of(area, row.get("id") or str(uuid.uuid5(NAMESPACE, name)), locked=True)


WRITERS: dict[str, Callable[[Path, Sequence[Row], Mapping[str, Any]], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".xlsx": _write_excel,
    ".geojson": _write_geojson,
}
