"""`wsipipe summarise`: what is counted where, in which order, and what is said of bad input."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from numpy.typing import NDArray

from tests.conftest import Phantom
from tests.masters import truth_master, write_master
from wsipipe.analysis.counted import read_counted
from wsipipe.analysis.regions import regions_frame, with_parents
from wsipipe.analysis.summary import summarise
from wsipipe.cli.main import main
from wsipipe.settings import SummariseSettings

SIZE = [9000, 7000]
CLASSES = {"Dead": [250, 0, 0], "Epithelial": [255, 140, 0]}


def square(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def annotation(name: str, *rings: list[list[float]], kind: str = "", role: str = "annotation") -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": role, "name": name}
    if kind:
        properties["classification"] = {"name": kind, "color": [1, 2, 3]}
    geometry = {"type": "Polygon", "coordinates": list(rings)}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


@pytest.fixture
def xy() -> NDArray[np.float64]:
    return np.random.default_rng(0).uniform(0, SIZE, (6000, 2)).round(1)


@pytest.fixture
def kinds() -> NDArray[np.int64]:
    return np.random.default_rng(1).integers(-1, 2, 6000)


@pytest.fixture
def cells(tmp_path: Path, xy: NDArray[np.float64], kinds: NDArray[np.int64]) -> Path:
    return write_master(tmp_path / "a.parquet", xy, kinds, size=SIZE, tissue_area_um2=15e6, classes=CLASSES)


@pytest.fixture
def regions(tmp_path: Path) -> Path:
    return write(
        tmp_path / "regions.geojson",
        annotation("Outer", square(0, 0, 8000, 6000), square(1000, 1000, 2000, 2000), kind="Tumor"),
        annotation("Inner", square(3000, 3000, 4000, 4000), kind="Stroma"),
        annotation("In the hole", square(1100, 1100, 1900, 1900)),
        annotation("", square(0, 0, 10, 10), role="detection"),
    )


def run(*args: object) -> int:
    return main([str(arg) for arg in args])


def test_counts_of_regions(cells: Path, regions: Path, tmp_path: Path, xy: Any, kinds: Any) -> None:
    """Nested regions count their cells twice, holes count none, types and densities add up."""
    assert run("summarise", cells, "--regions", regions, "-o", tmp_path / "o.csv") == 0
    table = pd.read_csv(tmp_path / "o.csv").set_index("region")
    assert table.index.tolist() == ["Tissue", "Outer", "Inner", "In the hole"]
    assert table["parent"].fillna("").tolist() == ["", "", "Outer", ""]
    assert table["classification"].fillna("").tolist() == ["", "Tumor", "Stroma", ""]
    x, y = xy.T
    hole = (x > 1000) & (x < 2000) & (y > 1000) & (y < 2000)
    outer = (x <= 8000) & (y <= 6000) & ~hole
    assert table["cells"].tolist() == [
        6000,
        outer.sum(),
        ((x >= 3000) & (x <= 4000) & (y >= 3000) & (y <= 4000)).sum(),
        ((x >= 1100) & (x <= 1900) & (y >= 1100) & (y <= 1900)).sum(),
    ]
    assert table.loc["Outer", "area_mm2"] == pytest.approx((48e6 - 1e6) * 0.25e-6)
    assert table.loc["Outer", "Dead_cells"] == (outer & (kinds == 0)).sum()
    assert table.loc["Outer", "Dead_share"] == pytest.approx((outer & (kinds == 0)).sum() / outer.sum(), abs=1e-6)
    row = table.loc["Outer"]
    assert row["cells_per_mm2_low"] < row["cells_per_mm2"] < row["cells_per_mm2_high"]
    assert row["Dead_share_low"] < row["Dead_share"] < row["Dead_share_high"]
    assert (
        np.isnan(table.loc["Inner", "cells_per_mm2_low"]) and "fewer than 8 fields" in table.loc["Inner", "intervals"]
    )
    assert table["area_um2_mean"].tolist() == [100] * 4


def test_distances_are_those_of_all_pairs(cells: Path, tmp_path: Path, xy: Any, kinds: Any) -> None:
    assert run("summarise", cells, "-o", tmp_path / "o.csv") == 0
    row = pd.read_csv(tmp_path / "o.csv").iloc[0]
    dead, epithelial = xy[kinds == 0] / 2, xy[kinds == 1] / 2
    apart = np.hypot(*(dead[:, None] - epithelial[None]).transpose(2, 0, 1))
    assert row["Dead_to_Epithelial_um_mean"] == pytest.approx(apart.min(1).mean(), abs=1e-5)
    among = np.hypot(*(dead[:, None] - dead[None]).transpose(2, 0, 1))
    np.fill_diagonal(among, np.inf)
    assert row["Dead_to_Dead_um_median"] == pytest.approx(np.median(among.min(1)), abs=1e-5)


def test_numbers_do_not_depend_on_order(tmp_path: Path, xy: Any, kinds: Any, regions: Path, cells: Path) -> None:
    """Other rows, other row groups, other regions beside: the same numbers, the same bytes."""
    measures = {"area_um2": np.random.default_rng(3).gamma(4, 10, len(xy))}
    common = {"size": SIZE, "tissue_area_um2": 15e6, "classes": CLASSES}
    (tmp_path / "b").mkdir()
    write_master(cells, xy, kinds, measures=measures, **common)
    order = np.random.default_rng(2).permutation(len(xy))
    shuffled = {name: values[order] for name, values in measures.items()}
    write_master(tmp_path / "b" / "a.parquet", xy[order], kinds[order], measures=shuffled, bin_px=2000, **common)
    for master, out in ((cells, "one"), (tmp_path / "b" / "a.parquet", "two")):
        for ending in ("csv", "parquet"):
            spots = ("--hot-spots", "2", "--hot-spot-area", "0.5")
            assert run("summarise", master, "--regions", regions, *spots, "-o", tmp_path / f"{out}.{ending}") == 0
    assert "Hot spot 2" in (tmp_path / "one.csv").read_text()
    for ending in ("csv", "parquet"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()
    found = read_counted(cells, ["area_um2"])
    shapes = [shapely.box(0, 0, 8000, 6000), shapely.box(100, 100, 5000, 6000)]
    frame = regions_frame([{"name": str(k), "geometry": shape} for k, shape in enumerate(shapes)])
    both = summarise(found, frame, SummariseSettings())
    alone = summarise(found, frame.iloc[1:], SummariseSettings())
    assert str(both[1]) == str(alone[0])


def test_deciles_of_any_measurement(tmp_path: Path, xy: Any, kinds: Any, regions: Path) -> None:
    """Of every region those of its own cells; what is no number is left out."""
    rng = np.random.default_rng(4)
    measures = {"eccentricity": rng.beta(2, 3, len(xy)), "hematoxylin_od_mean": rng.gamma(2, 0.2, len(xy))}
    measures["eccentricity"][::7] = np.nan
    master = write_master(tmp_path / "m.parquet", xy, kinds, measures=measures, size=SIZE, classes=CLASSES)
    asked = [part for name in measures for part in ("--measurement", name)]
    assert run("summarise", master, "--regions", regions, *asked, "-o", tmp_path / "o.csv") == 0
    table = pd.read_csv(tmp_path / "o.csv").set_index("region")
    x, y = xy.T
    inside = {"Tissue": x > -1, "Inner": (x >= 3000) & (x <= 4000) & (y >= 3000) & (y <= 4000)}
    for region, which in inside.items():
        for name, values in measures.items():
            known = values.astype(np.float32)[which & np.isfinite(values)]
            for percent in range(10, 100, 10):
                column = f"{name}_median" if percent == 50 else f"{name}_p{percent}"
                assert table.loc[region, column] == pytest.approx(np.percentile(known, percent), abs=2e-6), column
            assert table.loc[region, f"{name}_mean"] == pytest.approx(known.mean(), abs=2e-6)
    assert "area_um2_p10" not in table.columns, "only what was asked for"


def test_the_tissue_of_a_slide_has_an_interval(phantom: Phantom, tmp_path: Path, capfd: Any) -> None:
    """With the slide at hand the tissue is found again; without it, that is said."""
    master = truth_master(tmp_path / "cells.parquet", phantom)
    assert (
        run("summarise", master, "-o", tmp_path / "o.geojson", "-o", tmp_path / "o.csv", "--slide", phantom.path) == 0
    )
    assert "no interval" not in capfd.readouterr().err
    (feature,) = json.loads((tmp_path / "o.geojson").read_text())["features"]
    row = pd.read_csv(tmp_path / "o.csv").iloc[0]
    assert feature["properties"]["name"] == "Tissue" and feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["measurements"]["cells"] == row["cells"] > 50
    assert all(isinstance(v, int | float) or v == "NaN" for v in feature["properties"]["measurements"].values())
    mm2 = shapely.from_geojson(json.dumps(feature["geometry"])).area * 0.25e-6
    assert mm2 == pytest.approx(row["area_mm2"], rel=1e-3)
    assert run("summarise", master, "-o", tmp_path / "o.csv") == 0
    assert "is not known without its slide (--slide): no interval" in capfd.readouterr().err


def test_regions_come_back_from_qupath(cells: Path, regions: Path, tmp_path: Path) -> None:
    assert run("summarise", cells, "--regions", regions, "-o", tmp_path / "o.geojson") == 0
    assert run("summarise", cells, "--regions", tmp_path / "o.geojson", "-o", tmp_path / "b.geojson") == 0
    assert (tmp_path / "o.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()
    first = json.loads((tmp_path / "o.geojson").read_text())["features"][0]
    assert first["properties"]["classification"] == {"name": "Tumor", "color": [1, 2, 3]}


def test_a_folder_with_its_sheet(cells: Path, regions: Path, tmp_path: Path, xy: Any, capfd: Any) -> None:
    """One table: a row for each slide and region, the sheet's columns in it; one bad file stops no other."""
    out, drawn = tmp_path / "out", tmp_path / "drawn"
    (out / "b").mkdir(parents=True)
    drawn.mkdir()
    cells.rename(out / "a.parquet")
    write_master(out / "b" / "x.parquet", xy[:500], 0, size=SIZE, classes=CLASSES)
    regions.rename(drawn / "a.geojson")
    sheet = tmp_path / "cohort.csv"
    sheet.write_text(
        f"path,name,patient,age,arm,code\na.svs,a,007,61,x,{10**20}\nx.svs,b/x,008,,y,\ngone.svs,gone,009,7,y,1\n"
    )
    args = ("summarise", out, "--regions", drawn, "--sheet", sheet)
    assert run(*args, "-o", out / "all.parquet", "-o", tmp_path / "all.csv") == 0
    said = capfd.readouterr().err
    assert "no b/x.geojson in" in said and "1 slides of" in said and "the first: gone" in said
    table = pd.read_csv(tmp_path / "all.csv", dtype={"patient": str})
    assert table[["slide", "region"]].to_numpy().tolist() == [
        *[["a", name] for name in ("Tissue", "Outer", "Inner", "In the hole")],
        ["b/x", "Tissue"],
    ]
    assert table["patient"].tolist() == ["007"] * 4 + ["008"] and table["age"].tolist()[:4] == [61] * 4
    assert f",{10**20}," in (tmp_path / "all.csv").read_text()  # too large for a column of numbers: text
    (out / "broken.parquet").write_bytes(b"PAR1")
    assert run(*args, "-o", tmp_path / "again.csv") == 9
    assert "failed: broken: " in capfd.readouterr().err
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "all.csv").read_bytes()


def test_parents_are_the_smallest_around() -> None:
    shapes = [shapely.box(0, 0, 9, 9), shapely.box(1, 1, 8, 8), shapely.box(2, 2, 3, 3), shapely.box(20, 0, 21, 1)]
    frame = regions_frame([{"name": name, "geometry": shape} for name, shape in zip("abcd", shapes)])
    assert with_parents(frame)["parent"].tolist() == ["", "a", "b", ""]


BOW = [[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ([annotation("A", square(0, 0, 9, 9)), annotation("A", square(20, 0, 29, 9))], "are called 'A 2'"),
        ([annotation("A", BOW)], "outlines that crossed themselves were mended: 'A'"),
        ([annotation("A", square(-50, 0, 99, 99))], "what sticks out of the slide is cut off 'A'"),
    ],
)
def test_what_is_mended_is_told(cells: Path, tmp_path: Path, features: Any, said: str, capfd: Any) -> None:
    drawn = write(tmp_path / "r.geojson", *features)
    assert run("summarise", cells, "--regions", drawn, "-o", tmp_path / "o.csv") == 0
    assert said in capfd.readouterr().err
    assert len(pd.read_csv(tmp_path / "o.csv")) == 1 + len(features)


@pytest.mark.parametrize(
    ("features", "more", "code", "said"),
    [
        ([], (), 2, "no annotation with an area in it"),
        ([annotation("A", square(0, 0, 9, 9), role="detection")], (), 2, "no annotation with an area in it"),
        ([annotation("A", square(9500, 0, 9600, 9))], (), 2, "'A' outside the slide (9000 x 7000 px)"),
        ([annotation("A", square(0, 0, 9, 9))], ("--measurement", "wings"), 2, "--measurement wings: "),
        ([annotation("A", square(0, 0, 9, 9))], ("-o", "b.txt"), 6, "a summary is a .parquet, .csv, .xlsx, .geojson"),
        ([annotation("A", square(0, 0, 9, 9))], ("--sheet", "s.csv"), 2, "is also one of the summary's"),
    ],
)
def test_bad_input_is_one_line(
    cells: Path, tmp_path: Path, features: Any, more: tuple[str, ...], code: int, said: str, capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.csv").write_text("path,region\na.svs,x\n")
    drawn = write(tmp_path / "r.geojson", *features)
    before = sorted(tmp_path.iterdir())
    assert run("summarise", cells, "--regions", drawn, "-o", tmp_path / "o.csv", *more) == code
    told = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert len(told) == 1 and said in told[0]
    assert sorted(tmp_path.iterdir()) == before


def test_excel(cells: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes at any time; without the library one line says what to install."""
    if importlib.util.find_spec("openpyxl") is None:
        assert run("summarise", cells, "-o", tmp_path / "o.xlsx") == 7
        assert "pip install '.[xlsx]'" in capfd.readouterr().err and not (tmp_path / "o.xlsx").exists()
        return
    assert run("summarise", cells, "-o", tmp_path / "o.xlsx", "-o", tmp_path / "o.csv") == 0
    first = (tmp_path / "o.xlsx").read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert run("summarise", cells, "-o", tmp_path / "o.xlsx") == 0
    assert (tmp_path / "o.xlsx").read_bytes() == first
    assert pd.read_excel(tmp_path / "o.xlsx")["cells"].tolist() == pd.read_csv(tmp_path / "o.csv")["cells"].tolist()
