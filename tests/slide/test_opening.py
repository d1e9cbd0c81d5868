"""Which reader opens what, and what is said when none does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.conftest import ROOT
from tests.damage import IMAGE_LENGTH, TILE_COUNTS, TILE_LENGTH, TILE_WIDTH, pages, set_number, set_tag
from tests.slide.helpers import need
from wsipipe.errors import MissingDependency, SettingsError, SlideNotFound, UnreadableSlide, UnsupportedSlide
from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.settings import BACKENDS, Backend, SlideSettings
from wsipipe.slide import MppSource, backend_versions, open_slide

RGB = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)


@pytest.mark.parametrize(
    ("file", "backend", "mpp", "source"),
    [
        ("CMU-1-Small-Region.svs", "openslide", 0.499, MppSource.VENDOR),
        ("tma-core-he.ome.tif", "tiffslide", 0.50008, MppSource.VENDOR),
        ("variants/CMU-1-Small-Region-dicom", "dicom", 0.499, MppSource.VENDOR),
        ("variants/CMU-1-Small-Region.jpeg.tiff", "openslide", 0.00499, MppSource.TIFF),
        ("variants/CMU-1-Small-Region.jp2.tiff", "tiffslide", 0.00499, MppSource.TIFF),
        ("variants/CMU-1-Small-Region.webp.tiff", "tiffslide", 0.00499, MppSource.TIFF),
    ],
)
def test_auto_falls_through_on_real_slides(
    shared_data: Path, file: str, backend: str, mpp: float, source: MppSource
) -> None:
    need(backend)
    with open_slide(shared_data / "slides" / file) as slide:
        assert slide.info.backend == backend
        assert slide.info.mpp == pytest.approx((mpp, mpp), rel=1e-4)
        assert slide.info.mpp_source is source
        assert bool(slide.info.warnings) == (mpp < 0.05)


def test_one_dicom_file_stands_for_its_series(shared_data: Path) -> None:
    need("dicom")
    folder = shared_data / "slides" / "variants" / "CMU-1-Small-Region-dicom"
    for file in folder.iterdir():
        with open_slide(file) as slide:
            assert (slide.info.backend, slide.info.size) == ("dicom", (2220, 2967))


def test_malformed_dicom_names_every_refusal(shared_data: Path) -> None:
    with pytest.raises(UnreadableSlide, match=r"openslide: .*; tiffslide: .*; dicom: .*; picture: ") as caught:
        open_slide(shared_data / "slides" / "variants" / "malformed.dcm")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SlideNotFound, match=r"no such slide: .*nothing\.svs"):
        open_slide(tmp_path / "nothing.svs")


def test_text_named_svs(tmp_path: Path) -> None:
    path = tmp_path / "notes.svs"
    path.write_text("not a slide at all\n" * 40)
    with pytest.raises(UnreadableSlide, match=r"cannot open .*notes\.svs: openslide: Unsupported.*not a TIFF"):
        open_slide(path)


def test_empty_file_and_folders(tmp_path: Path) -> None:
    (tmp_path / "empty.svs").touch()
    (tmp_path / "a.dcm").write_bytes(b"x")
    with pytest.raises(UnreadableSlide, match=r"empty \(0 bytes\)"):
        open_slide(tmp_path / "empty.svs")
    with pytest.raises(UnreadableSlide, match="folder, which the openslide reader does not open"):
        open_slide(tmp_path, backend="openslide")
    (tmp_path / "a.dcm").unlink()
    with pytest.raises(UnreadableSlide, match="folder without DICOM files"):
        open_slide(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.svs"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(UnreadableSlide, match="no permission"):
        open_slide(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_file(lossless: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.svs"
    data = lossless.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableSlide, match=r"cannot open .*cut\.svs") as caught:
        open_slide(path)
    assert "\n" not in str(caught.value)


def test_a_reader_that_is_not_installed(lossless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Backend("wsipipe.slide.no_such_reader:Reader", ("no-such-package",), "cucim")
    monkeypatch.setitem(BACKENDS, "cucim", absent)
    assert backend_versions()["cucim"] is None
    with pytest.raises(MissingDependency, match=r"pip install '.\[cucim\]'"):
        open_slide(lossless, backend="cucim")


def test_auto_goes_on_without_a_missing_reader(lossless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Backend("wsipipe.slide.no_such_reader:Reader", ("no-such-package",), "")
    monkeypatch.setitem(BACKENDS, "openslide", absent)
    with open_slide(lossless) as slide:
        assert slide.info.backend == "tiffslide"


@pytest.mark.parametrize(("url", "library"), [("s3://bucket/a.svs", "s3fs"), ("https://host.invalid/a.svs", "aiohttp")])
def test_what_reads_a_url_is_told(url: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the library were not installed."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependency, match=r"pip install '.\[remote\]'"):
        open_slide(url)


def test_urls_are_read_by_tiffslide(lossless: Path) -> None:
    with open_slide(lossless.as_uri()) as slide, open_slide(lossless) as local:
        assert slide.info.backend == "tiffslide"
        assert np.array_equal(slide.read_region(0, 500, 400, 90, 70), local.read_region(0, 500, 400, 90, 70))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
def test_pictures(tmp_path: Path, name: str) -> None:
    Image.fromarray(RGB).save(tmp_path / name)
    with open_slide(tmp_path / name, SlideSettings(mpp=0.5)) as slide:
        assert (slide.info.mpp, slide.info.mpp_source) == ((0.5, 0.5), MppSource.OVERRIDE)
        assert len(slide.info.levels) == 1
        difference = slide.read_region(0, 0, 0, 400, 300).astype(int) - RGB
    assert np.abs(difference).mean() < (60 if name == "a.jpg" else 1e-9)


def test_the_print_resolution_of_a_picture_is_not_believed(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png", dpi=(300, 300))
    with open_slide(tmp_path / "a.png") as slide:
        assert slide.info.mpp is None


def test_transparent_picture_on_white(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[:50, :, 3], rgba[50:100, :, 3] = 0, 51
    Image.fromarray(rgba).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", mpp=1.0) as slide:
        pixels = slide.read_region(0, 0, 0, 400, 300)
    assert (pixels[:50] == 255).all()
    assert np.array_equal(pixels[50:100], np.rint(255 - 0.2 * (255.0 - RGB[50:100])).astype(np.uint8))
    assert np.array_equal(pixels[100:], RGB[100:])


def test_truncated_picture(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:20_000])
    with pytest.raises(UnreadableSlide, match=r"picture: .*truncated"):
        open_slide(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("shape", "axes", "dtype", "message"),
    [
        ((5, 256, 256, 3), "ZYXS", "uint8", "5 focal planes"),
        ((3, 256, 256, 3), "TYXS", "uint8", "3 time points"),
        ((4, 256, 256), "CYX", "uint8", "4 separate channel"),
        ((256, 256), "YX", "uint8", "1 separate channel"),
        ((256, 256, 3), "YXS", "uint16", "uint16 pixels; expected 8-bit RGB"),
    ],
)
def test_what_is_not_one_plane_of_rgb(
    tmp_path: Path, shape: tuple[int, ...], axes: str, dtype: str, message: str
) -> None:
    path = tmp_path / "stack.ome.tif"
    photometric = "rgb" if axes.endswith("S") else "minisblack"
    tifffile.imwrite(path, np.zeros(shape, dtype), photometric=photometric, metadata={"axes": axes}, ome=True)
    with pytest.raises(UnsupportedSlide, match=message):
        open_slide(path)


def test_grey_picture_is_refused(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(UnsupportedSlide, match="not colour"):
        open_slide(tmp_path / "grey.png")


def test_scenes(tmp_path: Path) -> None:
    path = tmp_path / "scenes.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for n, name in enumerate(["left", "right"]):
            picture = np.full((256 + 32 * n, 384, 3), 60 + 100 * n, np.uint8)
            scale = {"PhysicalSizeX": 0.25 * (n + 1), "PhysicalSizeY": 0.25 * (n + 1)}
            tiff.write(picture, tile=(128, 128), photometric="rgb", metadata={"axes": "YXS", "Name": name, **scale})
    for n, (size, mpp) in enumerate([((384, 256), 0.25), ((384, 288), 0.5)]):
        with open_slide(path, scene=n) as slide:
            assert slide.info.scenes == ("left", "right")
            assert (slide.info.scene, slide.info.size, slide.info.mpp) == (n, size, (mpp, mpp))
            assert (slide.read_region(0, 10, 200, 50, 50) == 60 + 100 * n).all()
    with pytest.raises(SettingsError, match=r"no scene 2; it has 2: 0 'left', 1 'right'"):
        open_slide(path, scene=2)


def test_ome_tiff_goes_to_tiffslide_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "tiled.ome.tif"
    tifffile.imwrite(path, RGB, tile=(128, 128), photometric="rgb", ome=True, metadata={"axes": "YXS"})
    for asked, used in (("auto", "tiffslide"), ("openslide", "openslide")):
        with open_slide(path, backend=asked) as slide:
            assert slide.info.backend == used
            assert np.array_equal(slide.read_region(0, 0, 0, 400, 300), RGB)


def test_scene_of_a_single_slide(lossless: Path) -> None:
    with pytest.raises(SettingsError, match="no scene 1; it has 1"):
        open_slide(lossless, scene=1)


@pytest.mark.parametrize(
    ("tag", "value"), [(TILE_COUNTS, 2**62), (TILE_COUNTS, 3 << 30), (TILE_WIDTH, 2**20)], ids=["count", "GiB", "tile"]
)
def test_a_tile_without_end_ends_no_process(tag: int, value: int, tmp_path: Path) -> None:
    """OpenSlide asks for as much memory as the directory says, and ends the process when there is none."""
    path = tmp_path / "a.svs"
    write_phantom(path, PhantomSettings(width=600, height=500, seed=1, mpp=0.5, tissue=0.9))
    page = pages(path)[0]
    if tag == TILE_COUNTS:
        set_tag(path, 0, tag, [value] * len(page.databytecounts))
    else:
        set_number(path, 0, TILE_WIDTH, value)
        set_number(path, 0, TILE_LENGTH, value)
    read = "import sys; from wsipipe.slide import open_slide; open_slide(sys.argv[1]).read_region(0, 0, 0, 300, 300)"
    done = subprocess.run(
        [sys.executable, "-c", read, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "GLib" not in done.stderr, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("wsipipe.errors.TileReadError") and (
        "its directory gives" in last or "outside the file" in last
    )


@pytest.mark.parametrize("backend", ["auto", "openslide", "tiffslide"])
def test_a_slide_higher_than_its_tiles_is_refused(backend: str, tmp_path: Path) -> None:
    """A whole slide on a coarse grid would be made of what is not there, for minutes."""
    write_phantom(tmp_path / "a.svs", PhantomSettings(width=600, height=500, seed=1, mpp=0.5, tissue=0.9))
    set_number(tmp_path / "a.svs", 0, IMAGE_LENGTH, 2_097_352)
    with pytest.raises(UnreadableSlide, match=r"says 600 x 2,097,352 px, which is .* tiles, and lists "):
        open_slide(tmp_path / "a.svs", backend=backend)


@pytest.mark.parametrize("size", [(4_000_001, 1), (1_000_001, 1_000_001)])
def test_a_slide_larger_than_any_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, RGB, photometric="rgb", rowsperstrip=len(RGB))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for name, value in zip(("ImageWidth", "ImageLength"), size, strict=True):
            tiff.pages[0].tags[name].overwrite(value)
    with pytest.raises(UnreadableSlide, match=f"a.tiff says that it is {size[0]:,} x {size[1]:,} px, larger than any"):
        open_slide(path, backend="tiffslide")
