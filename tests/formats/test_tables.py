"""CSV, GeoPackage, patches for Trident, and parts of a master file, read back by pandas, geopandas and h5py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas
import h5py
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from wsipipe.errors import OutputError, SettingsError, StoreError
from wsipipe.formats.delimited import write_csv
from wsipipe.formats.geopackage import write_geopackage
from wsipipe.formats.parquet import metadata, read_cells, row_groups
from wsipipe.formats.subset import write_subset
from wsipipe.formats.trident import write_cell_patches
from wsipipe.settings import SubsetSettings, ZarrSettings

Make = Callable[..., pa.Table]
Master = Callable[..., Path]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("n", [0, 300])
def test_csv_holds_the_measurements(make_table: Make, master: Master, tmp_path: Path, name: str, n: int) -> None:
    path = master(make_table(n, nuclei=True))
    assert write_csv(path, tmp_path / name) == [tmp_path / name]
    found, cells = pandas.read_csv(tmp_path / name), read_cells(path)
    assert found["cell_id"].tolist() == cells["cell_id"].tolist()
    assert found["class"].isna().tolist() == cells["class"].isna().tolist()
    for column in ("x", "y", "area_um2", "probability", "solidity"):
        np.testing.assert_allclose(found[column].astype(float), cells[column], rtol=1e-6)
    np.testing.assert_allclose(found["x_um"].astype(float), cells["x"] * 0.25, atol=1e-4)
    assert not {"geometry", "nucleus", "bbox"} & set(found.columns)


def test_csv_bytes_carry_no_time(make_table: Make, master: Master, tmp_path: Path) -> None:
    path = master(make_table(50))
    for name in ("a.csv.gz", "b.csv.gz"):
        write_csv(path, tmp_path / name)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


@pytest.mark.parametrize("nuclei", [False, True])
@pytest.mark.parametrize("n", [0, 300])
def test_geopackage_is_read_by_geopandas(
    make_table: Make, master: Master, tmp_path: Path, nuclei: bool, n: int
) -> None:
    path = master(make_table(n, nuclei=nuclei))
    write_geopackage(path, tmp_path / "a.gpkg")
    layers = ["cells", "nuclei"] if nuclei else ["cells"]
    assert pyogrio.list_layers(tmp_path / "a.gpkg")[:, 0].tolist() == layers
    cells = read_cells(path)
    for layer, column in zip(layers, ("geometry", "nucleus"), strict=False):
        found = geopandas.read_file(tmp_path / "a.gpkg", layer=layer)
        assert found["cell_id"].tolist() == cells["cell_id"].tolist()
        assert shapely.equals_exact(found.geometry.to_numpy(), cells[column].to_numpy(), 1e-9).all()
    found = geopandas.read_file(tmp_path / "a.gpkg", layer="cells")
    np.testing.assert_allclose(found["area_um2"].astype(float), cells["area_um2"], rtol=1e-6)
    assert not list(tmp_path.glob(".a.gpkg*"))


def test_geopackage_bytes_carry_no_time(make_table: Make, master: Master, tmp_path: Path) -> None:
    path = master(make_table(50))
    for name in ("a.gpkg", "b.gpkg"):
        write_geopackage(path, tmp_path / name)
    assert (tmp_path / "a.gpkg").read_bytes() == (tmp_path / "b.gpkg").read_bytes()


def test_patches_lie_around_their_cells(make_table: Make, master: Master, tmp_path: Path) -> None:
    path = master(make_table(200), working_mpp=[0.5, 0.5])
    write_cell_patches(path, tmp_path / "a.h5", ZarrSettings(patch=64))
    cells = read_cells(path)
    with h5py.File(tmp_path / "a.h5") as file:
        coords, about = file["coords"][:], dict(file["coords"].attrs)
        assert file["cell_id"].asstr()[:].tolist() == cells["cell_id"].tolist()
    assert coords.dtype == np.int64
    assert (about["patch_size"], about["patch_size_level0"], about["target_magnification"]) == (64, 128, 20)
    assert (about["level0_magnification"], about["level0_width"], about["level0_height"]) == (40, 40_000, 30_000)
    xy = cells[["x", "y"]].to_numpy()
    assert (coords >= 0).all() and (coords + 128 <= (40_000, 30_000)).all()
    inner = (xy > 64).all(axis=1)
    assert inner.sum() > 150
    assert (np.abs(coords[inner] + 64 - xy[inner]) <= 0.5).all()


def test_part_keeps_cells_as_they_are(make_table: Make, master: Master, tmp_path: Path) -> None:
    path = master(make_table(400))
    settings = SubsetSettings(bounds=(2000, 1000, 12_000, 15_000), classes="Neoplastic", min_probability=0.4)
    count = write_subset(path, tmp_path / "part.parquet", settings)
    cells, part = read_cells(path), read_cells(tmp_path / "part.parquet")
    wanted = (cells["class"] == "Neoplastic") & (cells["probability"] >= 0.4)
    wanted &= cells["x"].between(2000, 12_000, inclusive="left") & cells["y"].between(1000, 15_000, inclusive="left")
    assert 0 < count == wanted.sum() < 200
    assert part["cell_id"].tolist() == cells["cell_id"][wanted].tolist()
    about = metadata(tmp_path / "part.parquet")
    assert about["cells"] == count and about["analysed"] == [2000, 1000, 12_000, 15_000]
    assert about["cells_by_class"] == {"Neoplastic": count} and "cells_per_mm2" not in about
    assert len(list(row_groups(tmp_path / "part.parquet"))) > 1


def test_everything_is_the_same_file(make_table: Make, master: Master, tmp_path: Path) -> None:
    path = master(make_table(400))
    write_subset(path, tmp_path / "again.parquet", SubsetSettings())
    pandas.testing.assert_frame_equal(read_cells(path), read_cells(tmp_path / "again.parquet"))
    assert metadata(path) == metadata(tmp_path / "again.parquet")


def test_unknown_class_and_other_files_are_refused(make_table: Make, master: Master, tmp_path: Path) -> None:
    path = master(make_table(10))
    with pytest.raises(SettingsError, match="no class 'Tumour' in these cells; expected some of Inflammatory, Neopl"):
        write_subset(path, tmp_path / "part.parquet", SubsetSettings(classes="Tumour"))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    (tmp_path / "no").touch()
    for write in (write_csv, write_geopackage, write_cell_patches):
        with pytest.raises(StoreError, match="not a cells file"):
            write(tmp_path / "other.parquet", tmp_path / "a.out")
        with pytest.raises(OutputError, match="a file where a folder is expected"):
            write(path, tmp_path / "no" / "a.out")
    assert not list(tmp_path.glob("a.out*"))
