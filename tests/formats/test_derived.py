"""Derived classes ("Tumor: Positive") and their colours, in every format and picture."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import geopandas
import numpy as np
import pytest
import zarr

from tests.conftest import Phantom
from tests.masters import CLASSES, truth_master, write_master
from wsipipe.cli.main import main
from wsipipe.figure.overlay import draw_cells, look
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.report import Facts, write_report
from wsipipe.report.charts import css
from wsipipe.slide import open_slide
from wsipipe.view.index import CellIndex

WANTED = {
    "Dead": (250, 0, 0), "Dead: Negative": (170, 45, 90), "Dead: Positive": (225, 25, 25),
    "Epithelial": (255, 140, 0), "Epithelial: Negative": (172, 115, 90), "Epithelial: Positive": (227, 95, 25),
    "Negative": (90, 90, 180), "Positive": (200, 50, 50),
}  # fmt: skip
"""Halfway between the colours of type and grade."""


@pytest.fixture(scope="module")
def scored(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the phantom's nuclei, of two types and none, scored by a number that every second one has."""
    folder = tmp_path_factory.mktemp("derived")
    plain = truth_master(folder / "plain.parquet", phantom)
    count = metadata(plain)["cells"]
    cells = read_cells(plain)
    dab = np.where(np.arange(count) % 2, 0.5, 0.05)
    kinds = np.array([list(CLASSES).index(k) if k in CLASSES else -1 for k in cells["class"]])
    kept = ("fingerprint", "size", "mpp", "settings", "tissue_area_um2")
    about = {k: v for k, v in metadata(plain).items() if k in kept}
    measured = write_master(
        folder / "measured.parquet", cells[["x", "y"]].to_numpy(), kinds, 6.0, {"nucleus_dab_od_mean": dab}, **about
    )
    assert main(["score", str(measured), "-o", str(folder / "scored.parquet"), "--slide", str(phantom.path)]) == 0
    return folder / "scored.parquet"


def _converted(scored: Path, out: Path, *args: str) -> Path:
    assert main(["convert", str(scored), "-o", str(out), *args]) == 0
    return out


def test_parquet(scored: Path) -> None:
    assert {name: tuple(rgb) for name, rgb in metadata(scored)["classes"].items()} == WANTED
    found = geopandas.read_parquet(scored)["class"]
    assert set(found) == set(WANTED) - {"Dead", "Epithelial"} and not found.isna().any()


def test_geojson(scored: Path, tmp_path: Path) -> None:
    path = _converted(scored, tmp_path / "a.geojson")
    seen = {}
    for feature in json.loads(path.read_text())["features"]:
        told = feature["properties"]["classification"]
        seen[told["name"]] = tuple(told["color"])
    assert len(seen) == 6 and seen.items() <= WANTED.items()


def test_dsa(scored: Path, tmp_path: Path) -> None:
    path = _converted(scored, tmp_path / "a.json")
    document = json.loads(path.read_text())
    seen = {e["group"]: tuple(map(int, re.findall(r"\d+", e["lineColor"]))) for e in document["elements"]}
    assert len(seen) == 6 and seen.items() <= WANTED.items()


def test_csv_and_geopackage_keep_the_names(scored: Path, tmp_path: Path) -> None:
    """They have no place for colours."""
    with _converted(scored, tmp_path / "a.csv").open() as file:
        names = {row["class"] for row in csv.DictReader(file)}
    layer = geopandas.read_file(_converted(scored, tmp_path / "a.gpkg"))
    assert names == set(layer["class"]) == set(WANTED) - {"Dead", "Epithelial"}


def test_zarr(scored: Path, phantom: Phantom, tmp_path: Path) -> None:
    """As scanpy has colours: beside the table, in the order of the categories."""
    path = _converted(scored, tmp_path / "a.zarr", "--slide", str(phantom.path))
    (table,) = (p.parent for p in path.rglob("class_colors"))
    group = zarr.open_group(table.parent, mode="r")
    names, colours = group["obs/class/categories"][:].tolist(), group["uns/class_colors"][:].tolist()
    assert {n: tuple(bytes.fromhex(c[1:])) for n, c in zip(names, colours, strict=True)} == WANTED


def test_pictures_and_pages(scored: Path, phantom: Phantom, tmp_path: Path) -> None:
    """Overlay, viewer and report show the same colours."""
    with open_slide(phantom.path) as slide:
        view = look(slide)
        legend = draw_cells(view, scored, metadata(scored)["classes"])
        assert {name: tuple(rgb) for name, rgb in legend.items()} == WANTED
        near = np.abs(view.rgb.astype(int) - WANTED["Dead: Positive"]).max(axis=2) < 60
        assert near.sum() > 500, "outlines of that colour, which tissue does not have"
        write_report(scored, tmp_path / "a.html", Facts.of(scored), slide)
    index = CellIndex(scored)
    assert {c["name"]: tuple(c["colour"]) for c in index.classes()} == WANTED
    page = (tmp_path / "a.html").read_text()
    for name in set(WANTED) - {"Dead", "Epithelial"}:
        assert name in page and css(WANTED[name]) in page
