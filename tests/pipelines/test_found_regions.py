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
