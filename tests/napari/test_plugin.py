"""The napari plugin: its manifest, its layers, and shapes that come back. Without napari: its layers are plain data.

With npe2 installed the manifest is read by napari's own library, and the layers by way of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import ROOT, Phantom
from tests.masters import truth_master
from wsipipe.errors import OutputError
from wsipipe.formats.imported import read_drawn
from wsipipe.formats.parquet import read_cells
from wsipipe.slide import open_slide
from wsipipe.view.napari import reader
from wsipipe.view.napari.arrays import LabelLevel, NumberedCells, SlideLevel, Windows
from wsipipe.view.napari.reader import cells_reader, slide_reader
from wsipipe.view.napari.writer import write_shapes

MANIFEST = yaml.safe_load((ROOT / "wsipipe/view/napari/napari.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def master(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return truth_master(tmp_path_factory.mktemp("napari") / "cells.parquet", phantom)


def test_the_manifest_names_what_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["napari.manifest"] == {MANIFEST["name"]: "wsipipe.view.napari:napari.yaml"}
    assert MANIFEST["name"] == project["name"]
    ids = {command["id"] for command in MANIFEST["contributions"]["commands"]}
    for command in MANIFEST["contributions"]["commands"]:
        module, _, function = command["python_name"].partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    used = [c["command"] for kind in ("readers", "writers") for c in MANIFEST["contributions"][kind]]
    assert set(used) == ids


@pytest.mark.skipif(importlib.util.find_spec("npe2") is None, reason="npe2 is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_napari_takes_the_manifest() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(ROOT / "wsipipe/view/napari/napari.yaml")
    manifest.validate_imports()
    assert [r.command for r in manifest.contributions.readers or ()] == [
        "wsipipe-pathology.read_cells",
        "wsipipe-pathology.read_slide",
    ]


def test_a_slide_is_a_multiscale_image(phantom: Phantom) -> None:
    read = slide_reader(str(phantom.path))
    assert read is not None
    ((levels, about, kind),) = read([str(phantom.path)])
    assert kind == "image" and about["rgb"] and about["multiscale"] and about["scale"] == (0.5, 0.5)
    assert about["translate"] == (0.25, 0.25), "the corner of the first pixel is the origin, not its centre"
    assert levels[0].shape == (1024, 1536, 3) and [a.shape[0] > b.shape[0] for a, b in zip(levels, levels[1:])]
    with open_slide(phantom.path) as slide:
        assert np.array_equal(levels[0][100:164, 200:264], slide.read_region(0, 200, 100, 64, 64))
        assert np.array_equal(levels[0][100:164:4, 200:264:2, 1], slide.read_region(0, 200, 100, 64, 64)[::4, ::2, 1])
        assert np.array_equal(
            np.asarray(levels[-1]), slide.read_region(len(levels) - 1, 0, 0, *levels[-1].shape[1::-1])
        )
        assert np.array_equal(levels[0][-1, ..., 0], slide.read_region(0, 0, 1023, 1536, 1)[0, :, 0])
        empty = Windows(SlideLevel(slide, 0))[5:5]
        assert empty.shape == (0, 1536, 3)
        with pytest.raises(IndexError):
            Windows(SlideLevel(slide, 0))[1024]


def test_few_cells_are_polygons(master: Path) -> None:
    cells = read_cells(master)
    read = cells_reader(str(master))
    assert read is not None
    ((rings, about, kind),) = read(str(master))
    assert kind == "shapes" and len(rings) == len(cells) == len(about["edge_color"])
    box = np.array([*rings[3].min(axis=0)[::-1], *rings[3].max(axis=0)[::-1]]) + 0.5
    assert np.allclose(box, cells.geometry.iloc[3].bounds)
    kinds = [kind if isinstance(kind, str) else "" for kind in cells["class"]]
    assert list(about["features"]["class"]) == kinds and "" in kinds and "area_um2" in about["features"]


def test_many_cells_are_labels_and_points(master: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_POLYGONS", 10)
    read = cells_reader(str(master))
    assert read is not None
    (levels, about, kind), (points, dots, of_points) = read(str(master))
    assert (kind, of_points) == ("labels", "points") and about["multiscale"]
    cells = read_cells(master)
    assert np.allclose(points + 0.5, cells[["y", "x"]].to_numpy(), atol=0.01)
    assert list(dots["features"]["class"]) == [kind if isinstance(kind, str) else "" for kind in cells["class"]]
    labels = np.asarray(levels[0])
    assert labels.shape == (1024, 1536) and labels.dtype == np.int32
    numbers = np.unique(labels)[1:]
    assert len(numbers) > 0.98 * len(cells), "overlapping cells may hide some"
    for row in range(0, len(cells), 7):
        area, seen = cells.geometry.iloc[row].area, int((labels == row + 1).sum())
        assert seen <= 1.3 * area + 4
    whole = np.asarray(levels[0])
    assert np.array_equal(levels[0][300:420, 500:660], whole[300:420, 500:660]), "a window is a part of the whole"


def test_coarse_levels_are_dots(master: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = NumberedCells(str(master))
    coarse = Windows(LabelLevel(cells, (1536, 1024), 16.0))
    assert coarse.shape == (64, 96)
    seen = np.unique(np.asarray(coarse))
    assert 0 < len(seen) - 1 <= cells.cells
    for number in seen[1:][::9]:
        y, x = np.argwhere(np.asarray(coarse) == number)[0]
        centre = cells._xy[number - 1] / 16
        assert (int(centre[0]), int(centre[1])) == (x, y)
    monkeypatch.setattr("wsipipe.view.napari.arrays.COARSEST", 200)
    sizes = [level.shape for level in LabelLevel.pyramid(str(master), (1536, 1024))]
    assert sizes[0] == (1024, 1536) and max(sizes[-1]) <= 200 and len(sizes) == 4


def test_other_files_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "a.tif").write_text("no slide")
    assert cells_reader(str(tmp_path / "a.parquet")) is None and slide_reader(str(tmp_path / "a.tif")) is None
    assert cells_reader([str(tmp_path / "a.parquet")]) is None and slide_reader(["a", "b"]) is None


def test_shapes_come_back_where_they_were_drawn(tmp_path: Path, master: Path) -> None:
    read = cells_reader(str(master))
    assert read is not None
    ((_, about, _),) = read(str(master))
    square = np.array([[9.5, 19.5], [9.5, 29.5], [39.5, 29.5], [39.5, 19.5]])
    line = np.array([[0.0, 0.0], [5.0, 5.0]])
    meta = {"shape_type": ["polygon", "ellipse", "line"], "features": {"class": ["Tumor", None, "Tumor"]}}
    out = tmp_path / "drawn.geojson"
    assert write_shapes(str(out), [square, square, line], meta | {"metadata": about["metadata"]}) == [str(out)]
    first, second = read_drawn(out)
    assert first.shape.bounds == (20, 10, 30, 40) and first.kind == "Tumor" and second.kind == ""
    assert second.shape.bounds == pytest.approx((20, 10, 30, 40), abs=0.1)
    assert second.shape.area == pytest.approx(np.pi * 5 * 15, rel=0.01)
    assert json.loads(out.read_text())["features"][0]["properties"]["objectType"] == "annotation"
    with pytest.raises(OutputError, match="no shape of the layer encloses an area"):
        write_shapes(str(tmp_path / "none.geojson"), [line], {"shape_type": "line"})
    assert not (tmp_path / "none.geojson").exists()
