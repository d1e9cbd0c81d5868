"""The master file: the same bytes for any partition, read by everyone."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsipipe.errors import OutputError, StoreError
from wsipipe.formats import parquet, table

Make = Callable[..., pa.Table]
Master = Callable[..., Path]


def _split(cells: pa.Table, owner: np.ndarray, folder: Path) -> list[Path]:
    """Write the rows of *cells* into one part for each value of *owner*."""
    paths = []
    for part in np.unique(owner):
        paths.append(folder / f"{part}.arrow")
        parquet.write_part(cells.take(np.flatnonzero(owner == part)), paths[-1])
    return paths


@given(seed=st.integers(0, 2**32), parts=st.integers(1, 9))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_partition_gives_the_same_bytes(make_table: Make, about: dict[str, Any], seed: int, parts: int) -> None:
    cells, rng = make_table(150), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parquet.write_part(cells, folder / "whole.arrow")
        parquet.merge_parts([folder / "whole.arrow"], folder / "whole.parquet", about)
        shuffled = cells.take(rng.permutation(len(cells)))
        paths = _split(shuffled, rng.integers(0, parts, len(cells)), folder)
        rng.shuffle(paths)  # type: ignore[arg-type]
        parquet.merge_parts(paths, folder / "parts.parquet", dict(reversed(about.items())))
        assert (folder / "parts.parquet").read_bytes() == (folder / "whole.parquet").read_bytes()


def test_rows_follow_bins_then_centroids(make_table: Make, master: Master) -> None:
    cells = make_table(300)
    path = master(cells)
    keys = {i: (y // 4096, x // 4096, y, x) for i, y, x in _rows(cells, "cell_id", "_cy", "_cx")}
    groups = list(parquet.row_groups(path))
    order = [keys[i] for group in groups for i in group["cell_id"].to_pylist()]
    assert order == sorted(keys.values())
    assert [len({keys[i][:2] for i in group["cell_id"].to_pylist()}) for group in groups] == [1] * 9
    assert not set(table.KEYS) & set(groups[0].column_names)


def _rows(cells: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(cells[name].to_pylist() for name in names), strict=True))


def test_geopandas_reads_what_was_written(make_table: Make, master: Master) -> None:
    cells = make_table(100, nuclei=True)
    frame = geopandas.read_parquet(master(cells)).set_index("cell_id").loc[cells["cell_id"].to_pylist()]
    assert frame.crs is None
    assert "bbox" not in frame
    for column in ("geometry", "nucleus"):
        assert (shapely.to_wkb(frame[column].to_numpy()) == cells[column].to_numpy()).all()
    for column in ("x", "area_um2", "probability", "class_probability", "solidity"):
        np.testing.assert_array_equal(frame[column], cells[column].to_numpy())
    assert [name if isinstance(name, str) else None for name in frame["class"]] == cells["class"].to_pylist()


def test_geo_metadata_follow_geoparquet(make_table: Make, master: Master) -> None:
    path = master(make_table(100, nuclei=True))
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    assert set(geo["columns"]) == {"geometry", "nucleus"}
    column = geo["columns"]["geometry"]
    assert (column["encoding"], column["geometry_types"], column["crs"]) == ("WKB", ["Polygon"], None)
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    low, high = np.split(np.array(column["bbox"]), 2)
    bounds = parquet.read_cells(path).total_bounds
    assert (np.floor(bounds[:2]) == low).all()
    assert (np.ceil(bounds[2:]) == high).all()


def test_read_cells_of_a_box(make_table: Make, master: Master) -> None:
    path = master(make_table(300))
    everything, box = parquet.read_cells(path), (1000.0, 2000.0, 9000.0, 9000.0)
    near = everything[everything.intersects(shapely.box(*box))]
    found = parquet.read_cells(path, box)
    assert set(near["cell_id"]) <= set(found["cell_id"])
    assert 0 < len(found) < len(everything)
    assert len(found) - len(near) < 5


def test_metadata(make_table: Make, master: Master, about: dict[str, Any]) -> None:
    cells = make_table(100)
    path = master(cells)
    found = parquet.metadata(path)
    assert {key: found[key] for key in about if key != "classes"} == {k: about[k] for k in about if k != "classes"}
    assert found["cells"] == 100
    assert found["cells_per_mm2"] == 50
    assert found["oversize"] == sum(cells["oversize"].to_pylist())
    names = cells["class"].to_pylist()
    assert found["cells_by_class"] == {name: names.count(name) for name in set(names) - {None}}
    assert found["classes"]["Neoplastic"] == [200, 0, 0]
    assert len(found["classes"]["Inflammatory"]) == 3
    assert parquet.read_cells(path).attrs["wsipipe"] == found


def test_no_cells_and_no_classes(make_table: Make, master: Master) -> None:
    path = master(make_table(0, classes=()), classes=None)
    frame = parquet.read_cells(path)
    assert len(frame) == 0
    assert "class" in frame
    assert parquet.metadata(path)["cells_per_mm2"] == 0
    assert "class_probability" not in parquet.read_cells(master(make_table(5, classes=())))


def test_empty_parts_change_nothing(make_table: Make, about: dict[str, Any], tmp_path: Path) -> None:
    cells = make_table(50)
    parquet.write_part(cells, tmp_path / "a.arrow")
    parquet.write_part(cells.slice(0, 0), tmp_path / "b.arrow")
    assert parquet.merge_parts([tmp_path / "a.arrow"], tmp_path / "a.parquet", about) == 50
    assert parquet.merge_parts([tmp_path / f"{x}.arrow" for x in "ba"], tmp_path / "b.parquet", about) == 50
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_identities_are_version_5_uuids_of_slide_and_outline() -> None:
    polygons = np.array([shapely.Polygon([(1.01, 2), (3, 2.5), (2, 4)]), shapely.box(0, -1, 200_000, 3)])
    ids = table.cell_ids(polygons, "slide").to_pylist()
    for polygon, id_ in zip(polygons, ids, strict=True):
        name = np.rint(np.array(polygon.exterior.coords) * 100).astype("<i4").tobytes().hex()
        assert id_ == str(uuid.uuid5(table.NAMESPACE, f"slide:{name}"))
    assert table.cell_ids(polygons, "other").to_pylist()[0] != ids[0]
    assert table.cell_ids(polygons[:0], "slide").to_pylist() == []


def test_bad_polygons_are_refused(make_table: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    good = np.array([shapely.box(0, 0, 1, 1)])
    for bad in (shapely.Point(0, 0), shapely.Polygon(), None):
        with pytest.raises(ValueError, match="1 non-empty polygons for 2 cells"):
            table._check_polygons(np.array([*good, bad]), 2)


def test_a_cell_found_twice_is_refused(make_table: Make, about: dict[str, Any], tmp_path: Path) -> None:
    parts = [tmp_path / "a.arrow", tmp_path / "b.arrow"]
    for part in parts:
        parquet.write_part(make_table(10), part)
    with pytest.raises(StoreError, match="a cell twice"):
        parquet.merge_parts(parts, tmp_path / "out.parquet", about)
    assert not (tmp_path / "out.parquet").exists()


def test_parts_that_do_not_fit_are_refused(make_table: Make, about: dict[str, Any], tmp_path: Path) -> None:
    parquet.write_part(make_table(10), tmp_path / "a.arrow")
    parquet.write_part(make_table(10, seed=1, classes=()), tmp_path / "b.arrow")
    (tmp_path / "c.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:500])
    for name, says in {"b.arrow": "columns differ", "c.arrow": "not a readable part", "d.arrow": "not a read"}.items():
        with pytest.raises(StoreError, match=says):
            parquet.merge_parts([tmp_path / "a.arrow", tmp_path / name], tmp_path / "out.parquet", about)
    with pytest.raises(StoreError, match="bin size"):
        parquet.merge_parts([tmp_path / "a.arrow"], tmp_path / "out.parquet", about, bin_px=512)
    with pytest.raises(ValueError, match="lacks mpp_source"):
        parquet.merge_parts([tmp_path / "a.arrow"], tmp_path / "o", {k: about[k] for k in about if k != "mpp_source"})


def test_other_files_are_not_cells_files(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    for name in ("text", "other", "missing"):
        with pytest.raises(StoreError, match=f"{name}.parquet is"):
            parquet.read_cells(tmp_path / f"{name}.parquet")


def test_full_disk_leaves_the_old_file(
    make_table: Make, about: dict[str, Any], tmp_path: Path, tiny_disk: Path
) -> None:
    out = tiny_disk / "cells.parquet"
    out.write_bytes(b"old")
    parquet.write_part(make_table(1000), tmp_path / "a.arrow")
    with pytest.raises(OutputError, match=r"cannot write .*cells\.parquet: the disk is full"):
        parquet.merge_parts([tmp_path / "a.arrow"], out, about)
    with pytest.raises(OutputError, match="the disk is full"):
        parquet.write_part(make_table(1000), tiny_disk / "b.arrow")
    assert out.read_bytes() == b"old"
    assert os.listdir(tiny_disk) == ["cells.parquet"]
