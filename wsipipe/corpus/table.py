"""What is recorded of every patch, as rows while a corpus is written and as columns once it is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import zarr

COLUMNS: dict[str, Any] = {
    "slide": str,
    "patient": str,
    "organ": str,
    "x_base": np.int64,
    "y_base": np.int64,
    "mpp": np.float64,
    "split": str,
    "hash": np.uint64,
}
"""Columns of the table and how Zarr keeps them."""
CHUNK = 65_536


class Patch(NamedTuple):
    """One patch of the corpus.

    Attributes
    ----------
    source : int
        Number of the slide it comes from.
    x_base, y_base : int
        Top-left corner in base pixels of the slide, rounded.
    mpp : float
        Resolution of the patch in um/px.
    hash : int
        Perceptual hash, 64 bits.
    pixels : str
        Hex digest of the pixels.
    """

    source: int
    x_base: int
    y_base: int
    mpp: float
    hash: int
    pixels: str


class Origin(NamedTuple):
    """Where patches come from, by name: a slide, its patient, its organ and its part of the corpus."""

    slide: str
    patient: str
    organ: str
    split: str


def columns_of(patches: Sequence[Patch], origins: Sequence[Origin]) -> dict[str, list[Any]]:
    """Return the columns of the table, in :data:`COLUMNS`' order; *origins* are indexed by ``Patch.source``."""
    found = [(*origins[patch.source][:3], patch, origins[patch.source].split) for patch in patches]
    rows = [(s, who, organ, p.x_base, p.y_base, p.mpp, split, p.hash) for s, who, organ, p, split in found]
    return {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}


def write_table(folder: Path, columns: dict[str, list[Any]]) -> None:
    """Write *columns* as one-dimensional arrays of a new Zarr group at *folder*."""
    zarr.create_group(folder)
    for name, values in columns.items():
        kind = COLUMNS[name]
        array = zarr.create_array(folder / name, shape=(len(values),), chunks=(CHUNK,), dtype=kind)
        array[:] = np.array(values, dtype=np.dtypes.StringDType() if kind is str else kind)


def read_table(folder: Path) -> pa.Table:
    """Return the table at *folder* as an Arrow table."""
    group = zarr.open_group(folder, mode="r")
    columns = {}
    for name, kind in COLUMNS.items():
        values = np.asarray(group[name])
        columns[name] = pa.array(values.tolist(), pa.string()) if kind is str else pa.array(values)
    return pa.table(columns)
