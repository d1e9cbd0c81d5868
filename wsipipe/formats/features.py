"""Features of a slide's tiles in the HDF5 layout of Trident and CLAM, or as Zarr."""

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


def write_features(
    out: str | os.PathLike[str],
    features: NDArray[np.float32],
    coords: NDArray[np.int64],
    attributes: Mapping[str, Any],
    about: Mapping[str, Any],
) -> None:
    """Write the features of tiles, atomically.

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
        return
    with atomic_folder(path) as folder:
        group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=dict(names))
        for name, data, more in (("features", features, {}), ("coords", coords, dict(attributes))):
            array = group.create_array(name, shape=data.shape, chunks=(rows, data.shape[1]), dtype=data.dtype)
            array.attrs.update(more)
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
