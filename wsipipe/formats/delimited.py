"""Cells as comma-separated values, for spreadsheets, R and pandas."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from wsipipe.artifacts import atomic_path
from wsipipe.formats.columns import plain_columns
from wsipipe.formats.parquet import metadata, row_groups


def write_csv(master: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[Path]:
    """Write the measurements of a master file as CSV with a header (gzip for ``.csv.gz``); return the file.

    One row per cell: all columns but the shapes, with the centroid also in µm. What is missing is an empty field.

    Raises
    ------
    StoreError
        When *master* is not a master file of wsipipe.
    OutputError
    """
    path, about = Path(out), metadata(master)
    header = plain_columns(pq.read_schema(master).empty_table(), about).schema
    with atomic_path(path) as temporary, pa.OSFile(str(temporary), "wb") as file:
        packed = path.name.endswith(".gz")
        stream = pa.CompressedOutputStream(file, "gzip") if packed else file
        with pyarrow.csv.CSVWriter(stream, header) as writer:
            for table in row_groups(master):
                writer.write_table(plain_columns(table, about))
        if packed:
            stream.close()
    return [path]
