"""A cell that is flagged as oversize is so in every format."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import zarr

from wsipipe.formats.exports import FORMATS, Style, format_of
from wsipipe.formats.imported import import_geojson
from wsipipe.formats.parquet import read_cells
from wsipipe.settings import ExportSettings


def of_geojson(path: Path) -> list[bool]:
    features = json.loads(path.read_text())["features"]
    return [f["properties"]["measurements"]["oversize"] == 1 for f in features]


def of_csv(path: Path) -> list[bool]:
    return [row["oversize"] == "true" for row in csv.DictReader(path.read_text().splitlines())]


def of_geopackage(path: Path) -> list[bool]:
    return [bool(flag) for flag in pyogrio.read_dataframe(path, layer="cells")["oversize"]]


def of_dsa(path: Path) -> list[bool]:
    return [element["user"]["oversize"] == 1 for element in json.loads(path.read_text())["elements"]]


def of_trident(path: Path) -> list[bool]:
    with h5py.File(path) as file:
        return list(map(bool, file["oversize"][:]))


def of_ngff(path: Path) -> list[int]:
    labels = zarr.open_group(path, mode="r").attrs["ome"]["image-label"]
    return [entry["label-value"] for entry in labels["properties"] if entry["oversize"]]


def of_spatialdata(path: Path) -> list[bool]:
    return list(map(bool, zarr.open_group(path, mode="r")["tables/table/obs/oversize"][:]))


READERS: dict[str, tuple[str, Callable[[Path], list[Any]]]] = {
    "geojson": ("a.geojson", of_geojson),
    "csv": ("a.csv", of_csv),
    "geopackage": ("a.gpkg", of_geopackage),
    "dsa": ("a.json", of_dsa),
    "trident": ("a.h5", of_trident),
    "ngff": ("a.ome.zarr", of_ngff),
    "spatialdata": ("a.zarr", of_spatialdata),
}


def test_no_format_is_forgotten() -> None:
    assert set(READERS) | {"parquet"} == set(FORMATS)


@pytest.mark.parametrize("kind", READERS)
def test_oversize_is_told(
    kind: str, make_table: Callable[..., pa.Table], master: Callable[..., Path], tmp_path: Path
) -> None:
    path = master(make_table(60))
    name, read = READERS[kind]
    format_of(tmp_path / name).write(path, tmp_path / name, Style())
    flags = read_cells(path)["oversize"].to_numpy()
    wanted = (np.flatnonzero(flags) + 1).tolist() if kind == "ngff" else flags.tolist()
    assert flags.any() and read(tmp_path / name) == wanted


def test_it_comes_back_from_geojson(
    make_table: Callable[..., pa.Table], master: Callable[..., Path], about: dict[str, Any], tmp_path: Path
) -> None:
    path = master(make_table(60))
    format_of(tmp_path / "a.geojson").write(path, tmp_path / "a.geojson", Style(ExportSettings()))
    import_geojson(tmp_path / "a.geojson", tmp_path / "back.parquet", about | {"working_mpp": [0.5, 0.5]})
    before, after = (read_cells(p).set_index("cell_id")["oversize"] for p in (path, tmp_path / "back.parquet"))
    assert before.to_dict() == after.to_dict()


def test_it_comes_back_from_measurements_as_older_qupath_lists_them(
    make_table: Callable[..., pa.Table], master: Callable[..., Path], about: dict[str, Any], tmp_path: Path
) -> None:
    path = master(make_table(60))
    format_of(tmp_path / "a.geojson").write(path, tmp_path / "a.geojson", Style(ExportSettings()))
    content = json.loads((tmp_path / "a.geojson").read_text())
    for feature in content["features"]:
        told = feature["properties"]["measurements"]
        feature["properties"]["measurements"] = [{"name": name, "value": value} for name, value in told.items()]
    (tmp_path / "b.geojson").write_text(json.dumps(content))
    tables = []
    for name in ("a", "b"):
        import_geojson(tmp_path / f"{name}.geojson", tmp_path / f"{name}.parquet", about | {"working_mpp": [0.5, 0.5]})
        tables.append(read_cells(tmp_path / f"{name}.parquet"))
    assert tables[1]["oversize"].any() and tables[0].equals(tables[1])
