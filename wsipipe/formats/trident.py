"""Tile coordinates in the HDF5 layout of Trident and CLAM, for their feature extractors."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from wsipipe.artifacts import atomic_path
from wsipipe.geometry import Grid
from wsipipe.slide.protocol import SlideInfo
from wsipipe.tiling import TILE

MPP_AT_1X = 10.0
"""Microns per pixel at 1x, by the usual reckoning: 0.25 um/px is 40x."""


def magnification(mpp: float) -> int:
    """Return the nominal magnification of *mpp* um/px: the nearest of 1x, 2x, 5x, 10x, 20x, 40x and 80x."""
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
    base_mpp = grid.mpp[0] / grid.scale[0]
    attributes = {
        "patch_size": TILE,
        "patch_size_level0": round(TILE * grid.scale[0]),
        "level0_magnification": round(info.objective) if info.objective else magnification(base_mpp),
        "target_magnification": magnification(grid.mpp[0]),
        "overlap": overlap,
        "name": name,
        "savetodir": str(Path(path).parent),
        "level0_width": info.size[0],
        "level0_height": info.size[1],
    }
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        dataset = file.create_dataset("coords", data=np.asarray(coords, dtype=np.int64).reshape(-1, 2))
        dataset.attrs.update(attributes)
