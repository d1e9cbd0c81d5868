"""Features of a slide's tiles or cells in the HDF5 layout of Trident and CLAM, or as Zarr."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from wsipipe.artifacts import atomic_path, canonical_json, from_json
from wsipipe.errors import OutputError
from wsipipe.runs import atomic_folder

SUFFIXES = (".h5", ".zarr")
ABOUT = "wsipipe"
CELL_ID = "cell_id"


def write_features(
    out: str | os.PathLike[str],
    features: NDArray[np.float32],
    coords: NDArray[np.int64],
    attributes: Mapping[str, Any],
    about: Mapping[str, Any],
    cell_ids: NDArray[np.bytes_] | None = None,
) -> None:
    """Write the features of tiles, or of squares around cells, atomically.

    Parameters
    ----------
    out : path
        Ends in ``.h5`` or ``.zarr``.
    features : float32 (n, D)
    coords : int64 (n, 2)
        Top-left corners in base pixels, as x, y.
    attributes : mapping
        Of the coordinates, as Trident has them (:func:`wsipipe.formats.trident.tile_attributes`).
    about : mapping
        What made the features; must hold ``fingerprint``.
    cell_ids : bytes (n,), optional
        Of the cells, as ASCII: ``cell_id``; in Zarr as numbers of characters, uint8 (n, 36).

    Raises
    ------
    OutputError
    """
    path, told = Path(out), canonical_json(about).decode()
    names = {"name": attributes["name"], "savetodir": attributes["savetodir"], ABOUT: told}
    rows = max(1, min(len(coords), 1024))
    if path.suffix == ".h5":
        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            for name, data, more in (("features", features, names), ("coords", coords, attributes)):
                chunks = (rows, data.shape[1])
                file.create_dataset(name, data=data, chunks=chunks, maxshape=(None, data.shape[1])).attrs.update(more)
            if cell_ids is not None:
                file.create_dataset(CELL_ID, data=cell_ids, dtype=h5py.string_dtype("ascii", 36))
        return
    arrays: list[tuple[str, NDArray[Any], Mapping[str, Any]]] = [
        ("features", features, {}),
        ("coords", coords, attributes),
    ]
    if cell_ids is not None:
        characters = cell_ids.astype("S36").view(np.uint8).reshape(len(cell_ids), 36)
        arrays.append((CELL_ID, characters, {"characters": "ASCII"}))
    with atomic_folder(path) as folder:
        group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=dict(names))
        for name, data, more in arrays:
            array = group.create_array(name, shape=data.shape, chunks=(rows, data.shape[1]), dtype=data.dtype)
            array.attrs.update(dict(more))
            array[:] = data


def features_made(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what the features at *out* say of themselves; empty when there are none of ours."""
    path = Path(out)
    try:
        if path.suffix == ".h5":
            with h5py.File(path, "r") as file:
                text = file["features"].attrs[ABOUT]
        else:
            text = zarr.open_group(path, mode="r").attrs[ABOUT]
        found: dict[str, Any] = from_json(text)
    except (OSError, KeyError, TypeError, ValueError):
        return {}
    return found


def check_suffix(out: Path) -> None:
    """Raise OutputError when *out* has neither ending."""
    if out.suffix not in SUFFIXES:
        raise OutputError(f"{out}: unknown kind of output; expected a name ending in {' or '.join(SUFFIXES)}")
