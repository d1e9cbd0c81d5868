from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from wsipipe.errors import OutputError
from wsipipe.formats.trident import magnification, write_coords_h5
from wsipipe.raster import slide_grid
from wsipipe.slide import ArraySlide

COORDS = np.array([[0, 0], [384, 0], [0, 384]], dtype=np.int64)


@pytest.mark.parametrize(
    ("mpp", "expected"), [(0.2528, 40), (0.499, 20), (0.5, 20), (1.0, 10), (0.12, 80), (2.1, 5), (0.33, 40), (8, 1)]
)
def test_magnification(mpp: float, expected: int) -> None:
    assert magnification(mpp) == expected


def test_layout(tmp_path: Path) -> None:
    slide = ArraySlide([np.zeros((600, 900, 3), np.uint8)], mpp=0.25, objective=40.0)
    grid = slide_grid(slide.info, (0.25, 0.25), 0.5)
    write_coords_h5(tmp_path / "a.h5", COORDS, slide.info, grid, 64, "slide-1")
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["coords"]
        assert file["coords"].dtype == np.int64
        assert np.array_equal(file["coords"], COORDS)
        assert dict(file["coords"].attrs) == {
            "patch_size": 256,
            "patch_size_level0": 512,
            "level0_magnification": 40,
            "target_magnification": 20,
            "overlap": 64,
            "name": "slide-1",
            "savetodir": str(tmp_path),
            "level0_width": 900,
            "level0_height": 600,
        }


def test_no_tiles(tmp_path: Path) -> None:
    slide = ArraySlide([np.zeros((60, 90, 3), np.uint8)], mpp=0.25)
    write_coords_h5(tmp_path / "a.h5", COORDS[:0], slide.info, slide_grid(slide.info, (0.25, 0.25), None), 0, "s")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["coords"].shape == (0, 2)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "no").touch()
    slide = ArraySlide([np.zeros((60, 90, 3), np.uint8)], mpp=0.25)
    with pytest.raises(OutputError):
        write_coords_h5(
            tmp_path / "no" / "a.h5", COORDS, slide.info, slide_grid(slide.info, (0.25, 0.25), None), 0, "s"
        )
