"""Cores and hot spots as regions of ``wsipipe summarise``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

from tests.masters import write_master
from wsipipe.analysis.counted import CountedCells
from wsipipe.analysis.found_regions import hot_spot_regions, without_doubtful_shares
from wsipipe.analysis.hotspots import FEWEST
from wsipipe.cli.main import main
from wsipipe.errors import SettingsError
from wsipipe.phantom.slide import PhantomTruth, write_phantom
from wsipipe.settings import HotSpotSettings, MicroarraySettings, PhantomSettings
from wsipipe.slide import fingerprint


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, PhantomTruth]:
    """Return a drawn microarray, a cells file with its true nuclei, and the truth."""
    folder = tmp_path_factory.mktemp("array")
    slide = folder / "array.tiff"
    layout = MicroarraySettings(rows=2, columns=3, missing=0.17, fragmented=0.17, rotation=4)
    truth = write_phantom(slide, PhantomSettings(mpp=2.0, seed=4), array=layout)
    size = truth.settings.width, truth.settings.height
    about = {"fingerprint": fingerprint(slide), "size": list(size), "mpp": [2.0, 2.0], "tissue_area_um2": 1.4e6}
    about["settings"] = {"tissue": {"tissue": "auto"}}
    xy = truth.centroids((0, 0, *size))
    return slide, write_master(folder / "cells.parquet", xy, np.arange(len(xy)) % 2, 2.0, **about), truth


def test_a_row_for_each_core(array: tuple[Path, Path, PhantomTruth], capsys: pytest.CaptureFixture[str]) -> None:
    slide, master, truth = array
    sheet, out = master.with_name("sheet.csv"), master.with_name("cores.csv")
    sheet.write_text("core,name,patient\nA-1,P1,x\nB-2,P5,y\n")
    assert main(["summarise", str(master), "--slide", str(slide), "--tma", "--names", str(sheet), "-o", str(out)]) == 0
    table = pd.read_csv(out)
    cores = table[table["kind"] == "core"].set_index("core")
    assert len(cores) == 6 and cores.loc["A-1", "region"] == "P1" and cores.loc["B-2", "patient"] == "y"
    xy = truth.centroids((0, 0, truth.settings.width, truth.settings.height))
    nearest = np.argmin([np.hypot(*(xy - (c.x, c.y)).T) for c in truth.cores], axis=0)
    for k, core in enumerate(truth.cores):
        row = cores.loc[f"{'AB'[core.row]}-{core.column + 1}"]
        assert (row["core_status"] == "missing") == core.missing
        assert row["cells"] == pytest.approx((nearest == k).sum(), rel=0.03, abs=3)
        assert row["intervals"].startswith("none")
    assert cores["cells"].sum() > 0.97 * len(xy)


def test_cores_need_their_slide(array: tuple[Path, Path, PhantomTruth], capsys: pytest.CaptureFixture[str]) -> None:
    slide, master, _ = array
    out = str(master.with_name("none.csv"))
    assert main(["summarise", str(master), "--tma", "-o", out]) == 2
    assert "--tma looks for cores on the slide, which is not where it was" in capsys.readouterr().err
    assert main(["summarise", str(master), "--slide", str(slide), "--names", str(slide), "-o", out]) == 2
    assert "names the cores of a microarray; give --tma too" in capsys.readouterr().err
    assert not Path(out).exists()


def test_hot_spots_are_annotations_with_numbers(array: tuple[Path, Path, PhantomTruth]) -> None:
    slide, master, _ = array
    out = master.with_name("spots.geojson")
    options = ["--hot-spots", "2", "--hot-spot-area", "0.04"]
    assert main(["summarise", str(master), "--slide", str(slide), *options, "-o", str(out)]) == 0
    found = [f for f in json.loads(out.read_text())["features"] if f["properties"]["name"].startswith("Hot spot")]
    assert [f["properties"]["name"] for f in found] == ["Hot spot 1", "Hot spot 2"]
    for feature in found:
        assert shapely.area(shapely.from_geojson(json.dumps(feature["geometry"]))) * 4e-6 == pytest.approx(0.04)
        numbers = feature["properties"]["measurements"]
        assert numbers["cells_per_mm2"] == pytest.approx(numbers["cells"] / 0.04, rel=1e-3)
        assert numbers["cells"] < FEWEST and "Dead_share" not in numbers and numbers["Dead_cells"] > 0
    first, second = (f["properties"]["measurements"]["cells"] for f in found)
    assert first >= second


def cells(positive: np.ndarray | None) -> CountedCells:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, (4000, 3000), (9000, 2))
    classes = ("Tumor: Negative", "Tumor: Positive", "Other")
    code = np.full(9000, 2) if positive is None else np.where(positive(xy), 1, 0)  # type: ignore[operator]
    return CountedCells(xy, code.astype(np.int64), classes, {}, (0.5, 0.5))


def test_the_highest_share_of_positive_cells() -> None:
    scored = cells(lambda xy: (xy[:, 0] > 2500) & (np.arange(len(xy)) % 4 > 0))  # type: ignore[arg-type]
    said: list[str] = []
    wanted = HotSpotSettings(hot_spots=9, hot_spot_area=0.3, by="positive")
    regions = hot_spot_regions(scored, {"size": [4000, 3000]}, wanted, said.append)
    assert shapely.bounds(regions.geometry.iloc[0])[0] > 2300
    assert len(regions) < 9 and "hot spots found: no more squares of 0.3 mm² that do not overlap hold 500" in said[0]
    with pytest.raises(SettingsError, match="run `wsipipe score` first"):
        hot_spot_regions(cells(None), {"size": [4000, 3000]}, wanted, said.append)


def test_hot_spots_of_positive_cells_and_smallest_ones(tmp_path: Path) -> None:
    """By the command: where most are positive, and the smallest square with 500 cells; as annotations for QuPath."""
    rng = np.random.default_rng(0)
    xy = np.concatenate([rng.uniform(0, (6000, 4000), (12_000, 2)), rng.normal((1000, 1000), 120, (900, 2))])
    hot = (xy[:, 0] > 4000) & (xy[:, 1] > 2500)
    positive = (rng.random(len(xy)) < np.where(hot, 0.7, 0.1)).astype(int)
    measures = {"nucleus_dab_od_mean": positive * 0.5}
    measured = write_master(tmp_path / "measured.parquet", xy, measures=measures, size=[6000, 4000])
    master = tmp_path / "scored.parquet"
    assert main(["score", str(measured), "-o", str(master)]) == 0
    found = {}
    for name, options in {"share": ("--hot-spot-area", "0.4", "--by", "positive"), "small": ()}.items():
        out = tmp_path / f"{name}.geojson"
        assert main(["summarise", str(master), "--hot-spots", "1", *options, "-o", str(out)]) == 0
        (found[name],) = (f for f in json.loads(out.read_text())["features"] if f["properties"]["name"] == "Hot spot 1")
        assert found[name]["properties"]["objectType"] == "annotation"
        assert found[name]["properties"]["classification"]["name"] == "Hot spot"
    x0, y0, x1, y1 = shapely.bounds(shapely.from_geojson(json.dumps(found["share"]["geometry"])))
    inside = (xy[:, 0] >= x0) & (xy[:, 0] < x1) & (xy[:, 1] >= y0) & (xy[:, 1] < y1)
    numbers = found["share"]["properties"]["measurements"]
    assert x0 > 3600 and y0 > 2300 and numbers["cells"] >= FEWEST
    assert numbers["cells"] == pytest.approx(inside.sum(), abs=2), "corners of the file are rounded"
    assert numbers["positive_share"] == pytest.approx(positive[inside].mean(), abs=0.002)
    assert numbers["positive_share"] > 0.6
    x0, y0, x1, y1 = shapely.bounds(shapely.from_geojson(json.dumps(found["small"]["geometry"])))
    assert x0 < 1000 < x1 and y0 < 1000 < y1 and (x1 - x0) < 600
    assert found["small"]["properties"]["measurements"]["cells"] >= FEWEST


def test_no_share_of_few_cells() -> None:
    row = {
        "kind": "hot spot",
        "cells": FEWEST - 1,
        "positive_share": 0.5,
        "positive_share_low": 0.4,
        "positive_cells": 3,
    }
    assert without_doubtful_shares(row)["positive_share"] is None
    assert without_doubtful_shares(row)["positive_share_low"] is None
    assert without_doubtful_shares(row)["positive_cells"] == 3
    assert without_doubtful_shares(row | {"cells": FEWEST})["positive_share"] == 0.5
    assert without_doubtful_shares(row | {"kind": "core"})["positive_share"] == 0.5


def test_polygons_of_the_tissue_are_kept_apart(small_slide: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Cells found in several drawn pieces of tissue at once are counted in each by its name."""
    pieces = {"Left": shapely.box(40, 60, 300, 440), "Right": shapely.box(360, 60, 660, 300)}
    drawn = tmp_path / "drawn.geojson"
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shape),
            "properties": {"objectType": "annotation", "name": name, "classification": {"name": "Tumor"}},
        }
        for name, shape in pieces.items()
    ]
    drawn.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    master, out = tmp_path / "cells.parquet", tmp_path / "regions.csv"
    run = ["segment", str(small_slide), "--model", str(tiny_model), "--device", "cpu", "--tissue", str(drawn)]
    assert main([*run, "-o", str(master)]) == 0
    assert main(["summarise", str(master), "--regions", str(drawn), "-o", str(out)]) == 0
    table, cells = pd.read_csv(out).set_index("region"), pd.read_parquet(master)
    assert table.index.tolist() == ["Tissue", "Left", "Right"]
    for name, shape in pieces.items():
        inside = shapely.intersects_xy(shape, cells["x"], cells["y"])
        assert table.loc[name, "cells"] == inside.sum() > 20
        assert table.loc[name, "area_mm2"] == pytest.approx(shape.area * 0.25e-6, rel=1e-6)
    whole = table.loc["Tissue"]
    assert whole["cells"] == len(cells) == table["cells"][1:].sum()
    assert whole["area_mm2"] == pytest.approx(table["area_mm2"][1:].sum(), rel=1e-5)
