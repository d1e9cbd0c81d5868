"""Stacks of focal planes: refused until a plane is chosen, by number or as the sharpest, in each format of them."""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.dicom import write_dicom
from tests.slide.helpers import need
from tests.slide.stacks import BLURS, Pixels, halved, planes, write_czi, write_ndpi, write_ome
from wsipipe.cli.main import main
from wsipipe.errors import SettingsError, UnsupportedSlide
from wsipipe.formats.parquet import metadata
from wsipipe.settings import SlideSettings
from wsipipe.slide import open_slide

SHARP = BLURS.index(0.0)
JPEG = 3.0
"""Mean difference in grey levels that JPEG makes at most; planes differ by more."""
FORMATS = {"ome": "stack.ome.tif", "ndpi": "stack.ndpi", "dicom": "stack.dcm", "czi": "stack.czi"}


@pytest.fixture(scope="module")
def stack(picture: Pixels) -> list[Pixels]:
    return planes(picture)


@pytest.fixture(scope="module", params=FORMATS)
def slide(request: pytest.FixtureRequest, stack: list[Pixels], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / FORMATS[request.param]
    if request.param in ("czi", "dicom"):
        need(request.param)
    write: dict[str, Callable[[], None]] = {
        "ome": lambda: write_ome(path, stack),
        "ndpi": lambda: write_ndpi(path, stack, [-4000, -2000, 0, 2000]),
        "dicom": lambda: write_dicom(path, stack[0], 0.5, above=stack[1:]),
        "czi": lambda: write_czi(path, stack),
    }
    write[request.param]()
    return path


def differences(found: Pixels, expected: list[Pixels]) -> list[float]:
    return [float(np.abs(found.astype(float) - plane).mean()) for plane in expected]


def test_a_stack_is_refused_and_its_planes_named(slide: Path) -> None:
    with pytest.raises(UnsupportedSlide, match=r"4 focal planes: 0 \(.*µm\), 1 \(.*3 \(.*--plane N, or --plane sharp"):
        open_slide(slide)


@pytest.mark.parametrize("plane", range(len(BLURS)))
def test_each_plane_on_each_level(slide: Path, stack: list[Pixels], plane: int) -> None:
    with open_slide(slide, plane=str(plane)) as opened:
        info = opened.info
        assert (info.plane, len(info.planes), info.mpp) == (plane, 4, (0.5, 0.5))
        assert info.size == (1536, 1024)
        for level in range(len(info.levels)):
            expected = stack if level == 0 else [halved(p) for p in stack]
            found = differences(opened.read_region(level, 0, 0, *info.levels[level].size), expected)
            assert found[plane] < JPEG and found[plane] == min(found)
        part = opened.read_region(0, 900, 300, 130, 70)
        assert differences(part, [stack[plane][300:370, 900:1030]])[0] < JPEG
    with pickle.loads(pickle.dumps(opened)) as copy:
        assert copy.info == info and np.array_equal(copy.read_region(0, 900, 300, 130, 70), part)


def test_the_sharpest(slide: Path, stack: list[Pixels]) -> None:
    with open_slide(slide, plane="sharpest") as opened:
        assert opened.info.plane == SHARP
        (told,) = opened.info.warnings
        assert re.search(rf"focal plane {SHARP} is taken, the sharpest of 0 \(.*; sharpness [\d.]+, ", told)
        assert differences(opened.read_region(0, 0, 0, 1536, 1024), stack)[SHARP] < JPEG
    with pickle.loads(pickle.dumps(opened)) as copy:
        assert copy.info == opened.info


def test_the_sharpest_without_a_resolution(stack: list[Pixels], tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", np.stack(stack), photometric="rgb", imagej=True, metadata={"axes": "ZYXS"})
    with open_slide(tmp_path / "a.tif", plane="sharpest", backend="tiffslide") as opened:
        assert (opened.info.plane, opened.info.mpp) == (SHARP, None)


def test_a_plane_that_is_not_there(slide: Path, lossless: Path) -> None:
    with pytest.raises(SettingsError, match=r"no focal plane 4; it has 4: 0 \("):
        open_slide(slide, plane="4")
    with pytest.raises(SettingsError, match="no focal plane 1; it has one plane only: leave --plane out"):
        open_slide(lossless, plane="1")


@pytest.mark.parametrize("plane", ["0", "sharpest"])
def test_of_a_slide_that_is_no_stack(lossless: Path, plane: str) -> None:
    with open_slide(lossless, plane=plane) as opened, open_slide(lossless) as usual:
        assert opened.info == usual.info and not opened.info.planes


@pytest.mark.parametrize("plane", ["-1", "1.5", "best", ""])
def test_planes_that_are_none(plane: str) -> None:
    with pytest.raises(SettingsError, match="expected a number, 0 or more, or sharpest"):
        SlideSettings(plane=plane)


def test_openslide_by_name_does_not_take_the_middle_plane_of_an_ndpi_stack(stack: list[Pixels], tmp_path: Path) -> None:
    write_ndpi(tmp_path / "a.ndpi", stack, [-4000, -2000, 0, 2000])
    with pytest.raises(UnsupportedSlide, match="4 focal planes"):
        open_slide(tmp_path / "a.ndpi", backend="openslide")
    write_ndpi(tmp_path / "b.ndpi", stack[:1], [0])
    with open_slide(tmp_path / "b.ndpi") as one:
        assert one.info.backend == "openslide" and one.info.vendor == "hamamatsu"


def test_cells_are_those_of_the_plane_and_the_record_says_which(stack: list[Pixels], tmp_path: Path) -> None:
    """Asked for by number or as the sharpest; measured again on the same plane."""
    slide, single = tmp_path / "stack.ome.tif", tmp_path / "single.ome.tif"
    write_ome(slide, [plane[256:768, 256:768] for plane in stack])
    write_ome(single, [stack[SHARP][256:768, 256:768]])
    geometry = {}
    for name, source, more in (
        ("asked", slide, ["--plane", str(SHARP)]),
        ("found", slide, ["--plane", "sharpest"]),
        ("single", single, []),
    ):
        out = tmp_path / f"{name}.parquet"
        assert main(["segment", str(source), "-o", str(out), "--device", "cpu", *more]) == 0
        geometry[name] = _cells(out)
        record = json.loads(out.with_suffix(".run.json").read_text())
        assert record["settings"]["slide"].get("plane") == (more[1] if more else None)
        assert metadata(out).get("plane") == (SHARP if more else None)
        assert ("is taken, the sharpest of" in json.dumps(record["warnings"])) == (name == "found")
    assert len(geometry["single"]) > 10
    assert np.array_equal(geometry["asked"], geometry["single"])
    assert np.array_equal(geometry["found"], geometry["single"])
    again = tmp_path / "again.parquet"
    assert main(["measure", str(tmp_path / "asked.parquet"), "--slide", str(slide), "-o", str(again)]) == 0
    assert metadata(again)["plane"] == SHARP
    assert main(["segment", str(slide), "-o", str(tmp_path / "none.parquet")]) != 0
    assert not list(tmp_path.glob("none*"))


def _cells(path: Path) -> NDArray[np.float64]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["x", "y", "area_um2", "probability"])
    return np.column_stack([column.to_numpy() for column in table.columns])


def test_info_lists_the_planes(slide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(slide), "--plane", "1"]) == 0
    assert re.search(r"planes +0 \(.*shown: 1", " ".join(capsys.readouterr().out.split()))
    assert main(["info", str(slide), "--plane", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plane"] == 1


# --- CZI --------------------------------------------------------------------------------------------------------------


def test_czi_colours_corner_and_glass(picture: Pixels, tmp_path: Path) -> None:
    need("czi")
    write_czi(tmp_path / "a.czi", [picture])
    with open_slide(tmp_path / "a.czi", backend="czi") as opened:
        assert np.array_equal(opened.read_region(0, 0, 0, 1536, 1024), picture)
        assert opened.info.vendor == "zeiss" and not opened.info.planes
        assert (opened.read_region(0, -20, -20, 10, 10) == 255).all()


def test_czi_scenes_and_what_lies_between(picture: Pixels, tmp_path: Path) -> None:
    need("czi")
    from pylibCZIrw import czi

    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for scene, at in enumerate([(0, 0), (3000, 500)]):
            for part in (0, 512):
                tile = np.ascontiguousarray(picture[:256, part : part + 256, ::-1])
                file.write(tile, plane={"C": 0}, scene=scene, location=(at[0] + part, at[1]))
        file.write_metadata("scenes", scale_x=0.5e-6, scale_y=0.5e-6)
    with open_slide(tmp_path / "a.czi", backend="czi", scene=1) as opened:
        assert opened.info.size == (768, 256) and len(opened.info.scenes) == 2
        found = opened.read_region(0, 0, 0, 768, 256)
    assert np.array_equal(found[:, :256], picture[:256, :256]) and np.array_equal(
        found[:, 512:], picture[:256, 512:768]
    )
    assert (found[:, 256:512] == 255).all()
    with pytest.raises(SettingsError, match="no scene 2; it has 2"):
        open_slide(tmp_path / "a.czi", backend="czi", scene=2)


def test_czi_pyramid(picture: Pixels, tmp_path: Path) -> None:
    """The library cannot write reduced blocks: the size that one covers is set in the file afterwards."""
    need("czi")
    from pylibCZIrw import czi

    base, small = picture[:512, :512], np.full((256, 256, 3), (10, 200, 90), np.uint8)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        file.write(np.ascontiguousarray(base[..., ::-1]), plane={"C": 0}, location=(0, 0))
        file.write(np.ascontiguousarray(small[..., ::-1]), plane={"C": 0}, location=(0, 0))
        file.write_metadata("pyramid", scale_x=0.5e-6, scale_y=0.5e-6)
    data = (tmp_path / "a.czi").read_bytes()
    for axis in (b"X", b"Y"):
        entry = struct.Struct("<4siifi")  # dimension, start, size, start coordinate, stored size
        was, now = (entry.pack(axis, 0, size, 0.0, 256) for size in (256, 512))
        assert data.count(was) == 2, "in the block and in the directory"
        data = data.replace(was, now)
    (tmp_path / "a.czi").write_bytes(data)
    with open_slide(tmp_path / "a.czi", backend="czi") as opened:
        assert [level.size for level in opened.info.levels] == [(512, 512), (256, 256)]
        assert np.array_equal(opened.read_region(0, 0, 0, 512, 512), base)
        assert np.array_equal(opened.read_region(1, 0, 0, 256, 256), small)
        assert np.array_equal(opened.read_region(1, 30, 40, 50, 60), small[:60, :50])


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [((64, 64, 1), "C", "1 separate channel"), ((64, 64, 3), "T", "2 time points")],
)
def test_czi_that_is_no_brightfield_slide(shape: tuple[int, ...], axes: str, message: str, tmp_path: Path) -> None:
    need("czi")
    from pylibCZIrw import czi

    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for n in range(2 if axes == "T" else 1):
            file.write(np.zeros(shape, np.uint8), plane={"C": 0, axes: n}, location=(0, 0))
    with pytest.raises(UnsupportedSlide, match=message):
        open_slide(tmp_path / "a.czi", backend="czi")


def test_a_missing_czi_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from wsipipe.errors import UnreadableSlide

    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE" + bytes(2000))
    for name in [name for name in sys.modules if name.startswith(("pylibCZIrw", "wsipipe.slide.czi"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pylibCZIrw", None)
    with pytest.raises(UnreadableSlide, match="czi: "):
        open_slide(tmp_path / "a.czi")
