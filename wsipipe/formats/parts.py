"""Parts: the cells of one block each, in Arrow files whose rows are sorted into output bins of the slide."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wsipipe.artifacts import atomic_write, from_json
from wsipipe.errors import StoreError
from wsipipe.formats.table import KEYS, sort_rows

BIN_PX = 4096
"""Side of an output bin (a row group of the master file), in grid pixels."""
SEAL = 32
"""Bytes of the SHA-256 of a part, at its end."""
_BINS, _SIDE = b"wsipipe.bins", b"wsipipe.bin_px"

Bin = tuple[int, int]
"""Row and column of an output bin."""
Where = dict[Bin, list[tuple[Path, int]]]
"""For each bin, the parts and their batches that hold its cells."""


def write_part(table: pa.Table, path: str | os.PathLike[str], bin_px: int = BIN_PX) -> None:
    """Write the cells of one block, atomically, as a part: one Arrow batch for each output bin they fall into.

    Parameters
    ----------
    table : pyarrow.Table
        From :func:`cells_table`; may be empty.
    path : path
    bin_px : int
        Side of a bin in grid pixels; the same for all parts of a slide.

    Raises
    ------
    OutputError
    """
    cy, cx = (table[key].to_numpy() // bin_px for key in KEYS)
    bins = sorted(set(zip(cy.tolist(), cx.tolist(), strict=True)))
    schema = table.schema.with_metadata({_BINS: json.dumps(bins).encode(), _SIDE: str(bin_px).encode()})
    with atomic_write(path) as file:
        with pa.ipc.new_file(file, schema) as writer:
            for row, column in bins:
                rows = pa.table(table.take(np.flatnonzero((cy == row) & (cx == column)))).combine_chunks()
                writer.write_table(rows.cast(schema))
        file.flush()
        file.write(hashlib.sha256(Path(file.name).read_bytes()).digest())


def read_parts(parts: Sequence[str | os.PathLike[str]], bin_px: int = BIN_PX) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """Return the columns of *parts* and their cells, bin by bin, each in the order of the master file.

    Raises
    ------
    StoreError
        When a part is unreadable or does not go with the others, or (while iterating) a cell comes twice.
    """
    schema, where = _index(parts, bin_px)
    return schema, (_bin(where[bin_], bin_) for bin_ in sorted(where))


def first_line(error: BaseException) -> str:
    """Return the first line of what *error* says."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _bin(sources: list[tuple[Path, int]], bin_: Bin) -> pa.Table:
    rows = sort_rows(pa.concat_tables([_batch(part, i) for part, i in sources]))
    _refuse_twins(rows, bin_)
    return rows


def _index(parts: Sequence[str | os.PathLike[str]], bin_px: int) -> tuple[pa.Schema, Where]:
    """Return the schema of *parts* and, for each bin, the batches that hold its cells."""
    if not parts:
        raise ValueError("no parts to merge; expected at least one, even without cells")
    schema: pa.Schema | None = None
    where: Where = {}
    for part in map(Path, parts):
        with _open_part(part) as reader:
            about, columns = reader.schema.metadata or {}, reader.schema.remove_metadata()
        schema = schema or columns
        if about.get(_SIDE) != str(bin_px).encode() or columns != schema:
            raise StoreError(f"{part} was not written with the other parts: bin size or columns differ; remove it")
        for i, (row, column) in enumerate(from_json(about[_BINS])):
            where.setdefault((row, column), []).append((part, i))
    assert schema is not None
    return schema, where


@contextlib.contextmanager
def _open_part(part: Path) -> Iterator[pa.ipc.RecordBatchFileReader]:
    try:
        with pa.OSFile(str(part)) as file, pa.ipc.open_file(file, max(0, file.size() - SEAL)) as reader:
            yield reader
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"{part} is not a readable part: {first_line(error)}; remove it to have it made again"
        ) from error


def check_part(part: Path) -> None:
    """Raise StoreError when *part* cannot be read as it was written."""
    raw = part.read_bytes()
    if hashlib.sha256(raw[:-SEAL]).digest() != raw[-SEAL:]:
        raise StoreError(f"{part} is not a readable part: it was changed; remove it to have it made again")


def _batch(part: Path, i: int) -> pa.Table:
    with _open_part(part) as reader:
        return pa.Table.from_batches([reader.get_batch(i)]).replace_schema_metadata(None)


def _refuse_twins(rows: pa.Table, bin_: Bin) -> None:
    ids = rows["cell_id"].combine_chunks()
    if len(ids) > 1 and pc.any(pc.equal(ids[1:], ids[:-1])).as_py():
        raise StoreError(f"the parts hold a cell twice (output bin {bin_}): they come from different runs; start anew")
