"""Coordinates of tiles, and of patches around cells, in the HDF5 layout of Trident and CLAM."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from wsipipe.artifacts import atomic_path
from wsipipe.artifacts.plain import readable
from wsipipe.formats.parquet import metadata, row_groups
from wsipipe.geometry import Grid
from wsipipe.raster.tiling import TILE
from wsipipe.settings import ZarrSettings
from wsipipe.slide.protocol import SlideInfo

MPP_AT_1X = 10.0
"""Microns per pixel at 1x, by the usual reckoning: 0.25 µm/px is 40x."""


def magnification(mpp: float) -> int:
    """Return the nominal magnification of *mpp* µm/px: the nearest of 1x, 2x, 5x, 10x, 20x, 40x and 80x."""
    usual = np.array([1.25, 2.5, 5, 10, 20, 40, 80])
    return round(float(usual[np.abs(np.log(usual * mpp / MPP_AT_1X)).argmin()]))


def write_coords_h5(
    path: str | Path, coords: NDArray[np.int64], info: SlideInfo, grid: Grid, overlap: int, name: str
) -> None:
    """Write tile coordinates as Trident does.

    Parameters
    ----------
    path : path
        The .h5 file.
    coords : int64 array (n, 2)
        Top-left corners in base pixels, as x, y.
    info : SlideInfo
    grid : Grid
        The working grid: its resolution is the target magnification.
    overlap : int
        Overlap of neighbouring tiles in grid pixels.
    name : str
        Name of the slide without its suffix.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    attributes = tile_attributes(path, info, grid, overlap, name)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        dataset = file.create_dataset("coords", data=np.asarray(coords, dtype=np.int64).reshape(-1, 2))
        dataset.attrs.update(attributes)


def tile_attributes(path: str | Path, info: SlideInfo, grid: Grid, overlap: int, name: str) -> dict[str, Any]:
    """Return the attributes of tile coordinates; parameters as in :func:`write_coords_h5`."""
    base_mpp = grid.mpp[0] / grid.scale[0]
    about = _attributes(path, info.size, base_mpp, grid.mpp[0], objective=info.objective, name=name)
    return about | {"patch_size": TILE, "patch_size_level0": round(TILE * grid.scale[0]), "overlap": overlap}


def write_cell_patches(
    master: str | os.PathLike[str], out: str | os.PathLike[str], settings: ZarrSettings | None = None
) -> list[Path]:
    """Write the coordinates of a patch around every cell of a master file, as Trident does; return the file.

    Patches are ``settings.patch`` px at the resolution where the cells were found, moved into the slide where they
    would stick out of it. ``cell_id`` (text) has the cell of each row, ``oversize`` whether it is flagged as such.

    Raises
    ------
    StoreError
        When *master* is not a master file of wsipipe.
    OutputError
    """
    settings, about, path = settings or ZarrSettings(), metadata(master), Path(out)
    mpp, base_mpp = (about.get("working_mpp") or about["mpp"])[0], about["mpp"][0]
    side = round(settings.patch * mpp / base_mpp)
    name = path.name.partition(".")[0]
    attributes = _attributes(path, about["size"], base_mpp, mpp, objective=None, name=name)
    attributes |= {"patch_size": settings.patch, "patch_size_level0": side, "overlap": 0}
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        rows = max(1, min(about["cells"], 65536))
        options = {"maxshape": (None, 2), "chunks": (rows, 2)}
        coords = file.create_dataset("coords", (about["cells"], 2), "i8", **options)
        ids = file.create_dataset("cell_id", (about["cells"],), h5py.string_dtype("ascii", 36), chunks=(rows,))
        flags = file.create_dataset("oversize", (about["cells"],), "?", chunks=(rows,))
        start = 0
        for table in row_groups(master):
            corner = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1) - side / 2
            inside = np.clip(np.rint(corner), 0, np.maximum(0, np.array(about["size"]) - side))
            stop = start + table.num_rows
            coords[start:stop] = inside.astype(np.int64)
            ids[start:stop] = table["cell_id"].to_numpy().astype("S36")
            flags[start:stop] = table["oversize"].to_numpy()
            start = stop
        coords.attrs.update(attributes)
    return [path]


def _attributes(
    path: str | os.PathLike[str],
    size: Sequence[int],
    base_mpp: float,
    mpp: float,
    *,
    objective: float | None,
    name: str,
) -> dict[str, Any]:
    """Return what both kinds of file say of slide and resolution."""
    return {
        "level0_magnification": round(objective) if objective else magnification(base_mpp),
        "target_magnification": magnification(mpp),
        "name": readable(name),
        "savetodir": readable(str(Path(path).parent)),
        "level0_width": size[0],
        "level0_height": size[1],
    }
