"""Readers that open the same file give the same pixels; damage and emptiness look the same through all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from numpy.typing import NDArray

from tests.slide.helpers import TIFF_READERS, need, reduced
from wsipipe.errors import TileReadError
from wsipipe.phantom.slide import PhantomSettings, PhantomTruth, write_phantom
from wsipipe.slide import open_slide
from wsipipe.slide.overview import overview

JPEG_TOLERANCE = 2
"""Grey levels by which JPEG decoders may differ; those tested here agree to the bit."""


def read(path: Path, backend: str, level: int = 0) -> NDArray[np.int16]:
    need(backend)
    with open_slide(path, backend=backend) as slide:
        return slide.read_region(level, 0, 0, *slide.info.levels[level].size).astype(np.int16)


@pytest.fixture(scope="module", params=["aperio", "generic"])
def jpeg(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("jpeg") / "phantom.tif"
    write_phantom(path, PhantomSettings(width=1024, height=768, seed=2, vendor=request.param, level_factor=2))
    return path


@pytest.mark.parametrize("backend", [*TIFF_READERS[1:], "picture"])
def test_jpeg_phantom(jpeg: Path, backend: str) -> None:
    levels = (0,) if backend == "picture" else (0, 1)
    for level in levels:
        assert np.abs(read(jpeg, backend, level) - read(jpeg, "openslide", level)).max() <= JPEG_TOLERANCE


def test_jpeg_is_close_to_the_drawing(jpeg: Path) -> None:
    drawn = PhantomTruth(PhantomSettings(width=1024, height=768, seed=2)).picture((0, 0, 1024, 768))
    assert np.abs(read(jpeg, "openslide") - drawn).mean() < 2.5


@pytest.mark.parametrize("backend", [*TIFF_READERS[1:], "dicom"])
def test_real_aperio_slide(shared_data: Path, backend: str) -> None:
    svs = shared_data / "slides" / "CMU-1-Small-Region.svs"
    other = shared_data / "slides" / "variants" / "CMU-1-Small-Region-dicom" if backend == "dicom" else svs
    assert np.abs(read(svs, "openslide") - read(other, backend)).max() <= JPEG_TOLERANCE


@pytest.mark.parametrize("backend", TIFF_READERS[1:])
def test_real_generic_tiff(shared_data: Path, backend: str) -> None:
    path = shared_data / "slides" / "variants" / "CMU-1-Small-Region.jpeg.tiff"
    assert np.abs(read(path, "openslide") - read(path, backend)).max() <= JPEG_TOLERANCE


@pytest.mark.parametrize("compression", ["jp2", "webp"])
def test_other_compressions_hold_the_same_picture(shared_data: Path, compression: str) -> None:
    slides = shared_data / "slides"
    difference = read(slides / "CMU-1-Small-Region.svs", "openslide") - read(
        slides / "variants" / f"CMU-1-Small-Region.{compression}.tiff", "auto"
    )
    assert np.abs(difference).mean() < 6


@pytest.mark.parametrize("backend", TIFF_READERS)
def test_registration_when_sizes_do_not_divide(tmp_path: Path, backend: str) -> None:
    need(backend)
    settings = PhantomSettings(width=1501, height=1103, seed=4, lossless=True, tissue=1.0)
    truth = write_phantom(tmp_path / "odd.svs", settings)
    expected = reduced(truth.picture((0, 0, 1501, 1103)), 4)[195:265, 290:370]
    with open_slide(tmp_path / "odd.svs", backend=backend) as slide:
        assert slide.info.levels[1].downsample == (4.0, 4.0)
        here = np.abs(slide.read_region(1, 290, 195, 80, 70) - expected).mean()
        aside = [
            np.abs(slide.read_region(1, 290 + dx, 195 + dy, 80, 70) - expected).mean()
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))
        ]
    # OpenSlide interpolates here: within half a base pixel, an eighth of a level pixel
    assert here < (2.5 if backend == "openslide" else 0.3)
    assert here < min(aside) / 3


@pytest.mark.parametrize("backend", ["openslide", "tiffslide"])
def test_bounds_and_transparency_of_a_leica_file(tmp_path: Path, backend: str) -> None:
    settings = PhantomSettings(width=2000, height=1600, seed=4, lossless=True, bounds=(400, 320, 1500, 1300))
    truth = write_phantom(tmp_path / "part.scn", settings)
    with open_slide(tmp_path / "part.scn", backend=backend) as slide:
        assert slide.info.bounds == truth.scanned == (400, 320, 1500, 1300)
        assert slide.info.size == (2000, 1600)
        assert slide.info.vendor == "leica"
        corner = slide.read_region(0, 300, 220, 300, 300)
        level = slide.read_region(1, 75, 55, 75, 75)
    assert (corner[:100] == 255).all() and (corner[:, :100] == 255).all()
    assert np.array_equal(corner[100:, 100:], truth.picture((400, 320, 600, 520)))
    assert (level[:25] == 255).all() and np.abs(level - reduced(corner, 4)).max() <= 0.51


@pytest.mark.parametrize("backend", TIFF_READERS[1:])
def test_missing_tiles_are_background(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "sparse.tif"
    pixels = np.full((512, 512, 3), 90, np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags["TileByteCounts"].overwrite((*tiff.pages.first.databytecounts[:3], 0))
    region = read(path, backend)
    assert (region[256:, 256:] == 255).all()
    assert (region[:256] == 90).all()


@pytest.mark.parametrize("lossless", [False, True], ids=["jpeg", "deflate"])
@pytest.mark.parametrize("backend", TIFF_READERS)
def test_a_damaged_tile_is_an_error_and_the_next_read_works(tmp_path: Path, backend: str, lossless: bool) -> None:
    need(backend)
    path = tmp_path / "damaged.svs"
    settings = PhantomSettings(width=1024, height=1024, seed=5, tissue=0.9, corrupt_tiles=1, lossless=lossless)
    truth = write_phantom(path, settings)
    ((x0, y0, x1, y1),) = truth.bad
    beside = (x0 - 256 if x0 else 256), y0
    with open_slide(path, backend=backend) as slide:
        expected = slide.read_region(0, *beside, 256, 256)
        for _ in range(3):
            with pytest.raises(TileReadError, match=rf"damaged\.svs: cannot decode level 0, x {x0} y {y0}"):
                slide.read_region(0, x0, y0, x1 - x0, y1 - y0)
            assert np.array_equal(slide.read_region(0, *beside, 256, 256), expected)
        rgb, _, gaps = overview(slide, 0.25)
    hole, coarse = rgb[y0:y1, x0:x1], shapely.union_all([shapely.box(*box) for box in gaps.mended])
    assert coarse.covers(shapely.box(x0, y0, x1, y1)) and not gaps.lost, "looked up in a coarser level"
    assert (hole != 255).any()
