"""What is recorded of every patch, as rows while a corpus is written and as columns once it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

CHUNK = 65_536
Columns = Mapping[str, Sequence[str] | NDArray[Any]]


class Patch(NamedTuple):
    """One patch of the corpus.

    Attributes
    ----------
    source : int
        Number of the slide it comes from.
    x_base, y_base : int
        Top-left corner in base pixels of the slide, rounded.
    mpp : float
        Resolution of the patch in µm/px.
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


def patch_columns(patches: Sequence[Patch], origins: Sequence[Origin]) -> Columns:
    """Return the columns of the table of patches; *origins* are indexed by ``Patch.source``."""
    of = [origins[patch.source] for patch in patches]
    return {
        "slide": [origin.slide for origin in of],
        "patient": [origin.patient for origin in of],
        "organ": [origin.organ for origin in of],
        "x_base": np.array([patch.x_base for patch in patches], np.int64),
        "y_base": np.array([patch.y_base for patch in patches], np.int64),
        "mpp": np.array([patch.mpp for patch in patches], np.float64),
        "split": [origin.split for origin in of],
        "hash": np.array([patch.hash for patch in patches], np.uint64),
    }


def write_table(folder: Path, columns: Columns) -> None:
    """Write *columns* (arrays, or lists of text) as one-dimensional arrays of a new Zarr group at *folder*."""
    zarr.create_group(folder, attributes={"columns": list(columns)})
    for name, values in columns.items():
        data = values if isinstance(values, np.ndarray) else np.array(values, dtype=np.dtypes.StringDType())
        kind = data.dtype if isinstance(values, np.ndarray) else str
        array = zarr.create_array(folder / name, shape=(len(values),), chunks=(CHUNK,), dtype=kind)
        if len(values):
            array[:] = data


def read_table(folder: Path) -> pa.Table:
    """Return the table at *folder* as an Arrow table."""
    group: Any = zarr.open_group(folder, mode="r")
    columns = {}
    for name in group.attrs["columns"]:
        values = np.asarray(group[name])
        text = isinstance(values.dtype, np.dtypes.StringDType)
        columns[name] = pa.array(values.tolist(), pa.string()) if text else pa.array(values)
    return pa.table(columns)
