"""Cores of microarrays: found, numbered and judged on drawn arrays whose grid is known, and on a real core."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

from tests.damage import pages, spoil_level
from wsipipe.analysis.tma import Cores, find_cores, letters, place_of
from wsipipe.cli.main import main
from wsipipe.errors import UnsupportedSlide
from wsipipe.phantom.microarray import Core, lay_out
from wsipipe.phantom.truth import PhantomTruth
from wsipipe.settings import MicroarraySettings, PhantomSettings
from wsipipe.slide import ArraySlide, open_slide

MPP = 4.0
ARRAYS = {
    "plain": MicroarraySettings(rows=3, columns=4),
    "turned": MicroarraySettings(rows=4, columns=5, rotation=-24, missing=0.1),
    "bent": MicroarraySettings(rows=4, columns=7, bend_um=280, rotation=6, missing=0.1, fragmented=0.2),
    "bent the other way, close together": MicroarraySettings(
        rows=5, columns=6, spacing_um=760, bend_um=-240, rotation=-9, missing=0.2, fragmented=0.3
    ),
    "a fifth missing, a third in fragments": MicroarraySettings(rows=5, columns=6, missing=0.2, fragmented=0.33),
    "thick cores": MicroarraySettings(
        rows=3, columns=5, core_um=1500, spacing_um=2300, rotation=12, jitter_um=90, missing=0.13, fragmented=0.2
    ),
    "one row": MicroarraySettings(rows=1, columns=6, rotation=10),
}


def draw(array: MicroarraySettings, seed: int = 0) -> tuple[tuple[Core, ...], ArraySlide]:
    settings, cores = lay_out(array, PhantomSettings(mpp=MPP, seed=seed))
    picture = PhantomTruth(settings, cores=cores).picture((0, 0, settings.width, settings.height))
    return cores, ArraySlide([picture], MPP)


def by_place(cores: Cores) -> dict[tuple[int, int], pd.Series]:
    rows = {place_of(f"{row['row']}-{row['column']}"): row for _, row in cores.table.iterrows()}
    assert None not in rows
    return rows  # type: ignore[return-value]


@pytest.fixture(scope="module", params=ARRAYS)
def found(request: pytest.FixtureRequest) -> Iterator[tuple[MicroarraySettings, tuple[Core, ...], Cores]]:
    array = ARRAYS[request.param]
    true, slide = draw(array, seed=len(request.param))
    yield array, true, find_cores(slide, (MPP, MPP))


def test_every_core_has_its_name(found: tuple[MicroarraySettings, tuple[Core, ...], Cores]) -> None:
    array, true, cores = found
    places = by_place(cores)
    assert len(places) == len(true) == array.rows * array.columns
    for core in true:
        row = places[core.row, core.column]
        assert row["name"] == f"{letters(core.row)}-{core.column + 1}"
        assert row["missing"] == core.missing
        if not core.missing:
            away = np.hypot(row["x"] - core.x, row["y"] - core.y) / (2 * core.radius)
            assert away < (0.35 if core.fragmented else 0.07), row["name"]


def test_the_diameter_is_estimated(found: tuple[MicroarraySettings, tuple[Core, ...], Cores]) -> None:
    array, _, cores = found
    assert cores.diameter_um == pytest.approx(array.core_um, rel=0.06)


def test_whole_cores_are_sure(found: tuple[MicroarraySettings, tuple[Core, ...], Cores]) -> None:
    _, true, cores = found
    places = by_place(cores)
    whole = [places[c.row, c.column] for c in true if not c.missing and not c.fragmented]
    assert np.mean([row["status"] == "whole" for row in whole]) > 0.85  # some are half holes
    assert min(row["confidence"] for row in whole) > 0.5
    assert ((cores.table["confidence"] >= 0) & (cores.table["confidence"] <= 1)).all()


def test_cores_that_lost_a_part_are_told() -> None:
    true, slide = draw(MicroarraySettings(rows=4, columns=6, fragmented=0.6), seed=3)
    places = by_place(find_cores(slide, (MPP, MPP)))
    torn = [c for c in true if c.fragmented]
    told = [places[c.row, c.column]["status"] == "torn" for c in torn]
    assert np.mean(told) >= 0.4  # narrow cracks are closed by the search for tissue
    lost = [told[k] for k, c in enumerate(torn) if c.numbers[7] >= 0]
    assert len(lost) > 3 and all(lost)


def test_what_drifted_out_of_a_core_belongs_to_it() -> None:
    _, slide = draw(MicroarraySettings(rows=3, columns=4, fragmented=0.5, spacing_um=1100), seed=9)
    cores = find_cores(slide, (MPP, MPP))
    discs = shapely.area(cores.table.geometry) / (np.pi * cores.diameter_um**2 / 4 / MPP**2)
    assert discs.max() > 1.05 and discs.min() > 0.97
    first, second = np.triu_indices(len(cores.table), 1)
    shapes = cores.table.geometry.to_numpy()
    assert shapely.area(shapely.intersection(shapes[first], shapes[second])).max() == 0


def test_an_ordinary_slide_is_no_array() -> None:
    settings = PhantomSettings(width=1500, height=1250, mpp=8.0, seed=2, tissue=0.3)
    picture = PhantomTruth(settings).picture((0, 0, 1500, 1250))
    with pytest.raises(UnsupportedSlide, match="no microarray found"):
        find_cores(ArraySlide([picture], 8.0), (8.0, 8.0))
    glass = np.full((400, 400, 3), 243, np.uint8)
    with pytest.raises(UnsupportedSlide, match="no microarray found"):
        find_cores(ArraySlide([glass], 8.0), (8.0, 8.0))


def test_names_of_rows() -> None:
    assert [letters(k) for k in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]
    assert all(place_of(f"{letters(k)}-{k + 1}") == (k, k) for k in range(60))
    assert place_of("Tumour 3") is None


def test_real_slides(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / "tma-core-he.ome.tif") as slide:
        assert slide.info.mpp is not None
        cores = find_cores(slide, slide.info.mpp)
        assert cores.table["name"].tolist() == ["A-1"] and cores.table["status"].tolist() == ["whole"]
        assert cores.diameter_um == pytest.approx(690, rel=0.05)  # the picture is 690 µm wide, and cut close
        assert cores.table["confidence"].iloc[0] > 0.9
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        assert slide.info.mpp is not None
        with pytest.raises(UnsupportedSlide, match="round"):
            find_cores(slide, slide.info.mpp)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a drawn array, its true cores, and those found."""
    folder = tmp_path_factory.mktemp("tma")
    slide, truth = str(folder / "array.tiff"), str(folder / "truth.geojson")
    size = ["--rows", "3", "--columns", "4", "--rotation", "5", "--mpp", "4", "--seed", "8"]
    size += ["--missing", "0.17", "--fragmented", "0.17"]
    assert main(["demo-slide", slide, "--tma", *size, "--cores", truth]) == 0
    out = [str(folder / name) for name in ("cores.geojson", "cores.csv", "grid.png")]
    assert main(["tma", slide, "-o", out[0], "-o", out[1], "--overlay", out[2]]) == 0
    return folder


def features(path: Path) -> dict[str, dict]:
    return {f["properties"]["name"]: f for f in json.loads(path.read_text())["features"]}


def test_the_files(drawn: Path) -> None:
    true, found = features(drawn / "truth.geojson"), features(drawn / "cores.geojson")
    assert found.keys() == true.keys() and len(found) == 12
    for name, feature in found.items():
        kind = feature["properties"]["classification"]["name"]
        assert feature["properties"]["objectType"] == "annotation" and len(feature["id"]) == 36
        really = true[name]["properties"]["classification"]["name"]
        assert (kind == "TMA core: missing") == (really == "TMA core: missing")
        assert {"confidence", "tissue_share", "pieces"} <= feature["properties"]["measurements"].keys()
    assert pd.read_csv(drawn / "cores.csv")["name"].tolist() == list(found)
    assert (drawn / "grid.png").stat().st_size > 10_000


def test_a_sheet_names_them(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet, out = drawn / "sheet.csv", drawn / "named.csv"
    sheet.write_text("core;name;patient\nA-1;P7;007\nb-2;P8;008\n")
    assert main(["tma", str(drawn / "array.tiff"), "--names", str(sheet), "-o", str(out)]) == 0
    table = pd.read_csv(out, dtype=str)
    assert table["name"].tolist()[:2] == ["P7", "A-2"] and table["name"][5] == "P8"
    assert table["patient"][0] == "007" and table["patient"].isna().sum() == 10
    assert "names 2 of 12 cores" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("patient\nx\n", "its columns are patient; expected core"),
        ("core,name\nA1x,P1\n", "line 2: core 'A1x'; expected a row and a column"),
        ("core,name\nD-1,P1\n", "core D-1 is not among the cores found (rows A to C, columns 1 to 4)"),
        ("row,column\nA,1\nA,1\n", "line 3: core A-1 stands there twice"),
        ("core,confidence\nA-1,1\n", "column 'confidence' is one that cores have already"),
        ("core,name\nA-1," + 200_000 * "x" + "\n", "line 2: cannot be read as a CSV table (field larger than"),
        ("core," + 200_000 * "x" + "\nA-1,P\n", "line 1: cannot be read as a CSV table (field larger than"),
    ],
)
def test_a_bad_sheet(drawn: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = drawn / "bad.csv"
    sheet.write_text(text)
    assert main(["tma", str(drawn / "array.tiff"), "--names", str(sheet)]) == 2
    assert words in capsys.readouterr().err


def test_an_edited_file_is_the_truth(drawn: Path) -> None:
    edited = json.loads((drawn / "cores.geojson").read_text())
    first, second = edited["features"][:2]
    first["properties"]["name"] = "Liver control"
    second["geometry"]["coordinates"] = [[[x + 10, y] for x, y in second["geometry"]["coordinates"][0]]]
    del edited["features"][2]
    path, out = drawn / "edited.geojson", drawn / "edited.csv"
    path.write_text(json.dumps(edited))
    assert main(["tma", str(drawn / "array.tiff"), "--names", str(path), "-o", str(out)]) == 0
    before, after = pd.read_csv(drawn / "cores.csv"), pd.read_csv(out)
    assert after["name"].tolist() == ["Liver control", "A-2", *before["name"][3:]]
    assert after["x"][1] == pytest.approx(before["x"][1] + 10, abs=0.5)
    assert after["confidence"].eq(1).all()
    assert after["status"][3:].tolist() == before["status"][4:].tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f[1]["properties"].update(name="A-1"), "two cores are called 'A-1'"),
        (lambda f: f.clear(), "no core in it"),
        (
            lambda f: f[0]["geometry"].update(coordinates=[[[-9, -9], [-5, -9], [-5, -5], [-9, -9]]]),
            "outside the slide",
        ),
    ],
)
def test_a_bad_edited_file(drawn: Path, change: object, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    edited = json.loads((drawn / "cores.geojson").read_text())
    change(edited["features"])  # type: ignore[operator]
    (drawn / "bad.geojson").write_text(json.dumps(edited))
    assert main(["tma", str(drawn / "array.tiff"), "--names", str(drawn / "bad.geojson")]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rows", "3"], "--rows is for a microarray"),
        (["--cores", "c.geojson"], "--cores is for a microarray"),
        (["--tma", "--width", "900"], "--width does not go with --tma"),
        (["--tma", "--core-um", "900", "--spacing-um", "500"], "expected cores that do not overlap"),
        (["--tma", "--rows", "40", "--spacing-um", "8000"], "too large"),
    ],
)
def test_bad_options_of_the_demo(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo-slide", str(tmp_path / "a.tiff"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot_be(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, words in (["-o", "a.xlsx"], ".geojson or .csv"), (["--overlay", "a.jpg"], "ends in .png"):
        assert main(["tma", str(drawn / "array.tiff"), *options]) == 2
        assert words in capsys.readouterr().err


def test_what_cannot_be_read_is_told(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A core that nobody can see is called missing, and not without a word."""
    path = Path(shutil.copy(drawn / "array.tiff", tmp_path))
    for level in range(len(pages(path))):
        spoil_level(path, level, lambda index: index == 0)
    assert main(["tma", str(path)]) == 0
    assert "mm² of the slide cannot be read in any pyramid level: taken for glass" in capsys.readouterr().err
