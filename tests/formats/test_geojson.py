"""GeoJSON by QuPath's rules."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import orjson
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsipipe.errors import OutputError, StoreError
from wsipipe.formats import geojson, parquet, stream, text
from wsipipe.geometry import qupath_origin
from wsipipe.settings import ExportSettings

Make = Callable[..., pa.Table]
Master = Callable[..., Path]
SCHEMA = jsonschema.Draft202012Validator(json.loads((Path(__file__).parent / "qupath.schema.json").read_text()))


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def _load(path: Path) -> list[dict[str, Any]]:
    """Return the features of a file that is strict JSON and follows QuPath's rules."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    collection = json.loads(raw, parse_constant=_refuse)
    SCHEMA.validate(collection)
    features: list[dict[str, Any]] = collection["features"]
    return features


@pytest.mark.parametrize("nuclei", [False, True])
@pytest.mark.parametrize("classes", [(), ("Neoplastic", "Inflammatory")])
@pytest.mark.parametrize("options", [{}, {"points": True}, {"decimals": 0}, {"unreadable": True}])
@pytest.mark.parametrize("n", [0, 25])
def test_every_export_follows_the_rules(
    make_table: Make, master: Master, tmp_path: Path, nuclei: bool, classes: tuple[str, ...], options: Any, n: int
) -> None:
    path = master(make_table(n, nuclei=nuclei, classes=classes))
    geojson.write_geojson(path, tmp_path / "a.geojson", ExportSettings(**options))
    features = _load(tmp_path / "a.geojson")
    assert len(features) == n + bool(options.get("unreadable"))
    kinds = {feature["properties"]["objectType"] for feature in features} - {"annotation"}
    assert kinds <= {"cell" if nuclei and not options.get("points") else "detection"}


def test_features_say_what_the_master_says(make_table: Make, master: Master, tmp_path: Path) -> None:
    path = master(make_table(80, nuclei=True))
    geojson.write_geojson(path, tmp_path / "a.geojson")
    frame, features = parquet.read_cells(path), _load(tmp_path / "a.geojson")
    assert [feature["id"] for feature in features] == frame["cell_id"].tolist()
    for column, key in (("geometry", "geometry"), ("nucleus", "nucleusGeometry")):
        shapes = np.array([shapely.geometry.shape(feature[key]) for feature in features])
        assert shapely.equals_exact(shapes, frame[column].to_numpy(), tolerance=1e-9).all()
    colours = parquet.metadata(path)["classes"]
    for feature, (_, row) in zip(features, frame.iterrows(), strict=True):
        found = feature["properties"]
        name = row["class"] if isinstance(row["class"], str) else None
        assert found.get("classification") == ({"name": name, "color": colours[name]} if name else None)
        assert found["measurements"]["area_um2"] == pytest.approx(row["area_um2"], abs=6e-5)
        assert found["measurements"]["probability"] == pytest.approx(row["probability"], abs=6e-5)
        assert found["measurements"]["oversize"] == row["oversize"]
    assert frame["oversize"].any() and not frame["oversize"].all()


def test_what_is_not_a_number_is_text(make_table: Make, master: Master, tmp_path: Path) -> None:
    geojson.write_geojson(master(make_table(100)), tmp_path / "a.geojson")
    values = [feature["properties"]["measurements"]["solidity"] for feature in _load(tmp_path / "a.geojson")]
    assert values.count("NaN") == 2
    assert all(isinstance(value, float) for value in values if value != "NaN")


@pytest.mark.parametrize(
    ("bounds", "origin"),
    [
        (None, (0, 0)),
        ((100, 200, 30_000, 20_000), (100, 200)),
        ((100, 200, 40_100, 20_000), (0, 0)),  # as wide as the slide: QuPath does not crop
        ((100, 200, 30_000, 30_200), (0, 0)),  # as high
        ((0, 0, 40_000, 30_000), (0, 0)),
    ],
)
def test_bounds(make_table: Make, master: Master, tmp_path: Path, bounds: Any, origin: tuple[int, int]) -> None:
    assert qupath_origin((40_000, 30_000), bounds) == origin
    path = master(make_table(30), bounds=bounds)
    geojson.write_geojson(path, tmp_path / "a.geojson", ExportSettings(unreadable=True))
    bad, *features = _load(tmp_path / "a.geojson")
    shapes = np.array([shapely.geometry.shape(feature["geometry"]) for feature in features])
    moved = shapely.transform(parquet.read_cells(path).geometry.to_numpy(), lambda xy: xy - origin)
    assert shapely.equals_exact(shapes, moved, tolerance=0.006).all()
    assert bad["geometry"]["coordinates"][0][0] == [100 - origin[0], 200 - origin[1]]


def test_points_are_centroids(make_table: Make, master: Master, tmp_path: Path) -> None:
    path = master(make_table(30))
    geojson.write_geojson(path, tmp_path / "a.geojson", ExportSettings(points=True))
    points = [feature["geometry"]["coordinates"] for feature in _load(tmp_path / "a.geojson")]
    np.testing.assert_allclose(points, parquet.read_cells(path)[["x", "y"]], atol=0.0051)


@pytest.mark.parametrize("suffix", ["geojson", "geojson.gz"])
def test_split(make_table: Make, master: Master, tmp_path: Path, suffix: str) -> None:
    path = master(make_table(250))
    paths = geojson.write_geojson(path, tmp_path / f"a.{suffix}", ExportSettings(split=100, unreadable=True))
    assert [p.name for p in paths] == [f"a.{i}of3.{suffix}" for i in (1, 2, 3)]
    pieces = [_load(p) for p in paths]
    assert [len(piece) for piece in pieces] == [101, 100, 50]
    ids = [feature["id"] for piece in pieces for feature in piece if "id" in feature]
    assert ids == parquet.read_cells(path)["cell_id"].tolist()


def test_split_names() -> None:
    names = geojson.pieces(Path("a.b.geojson.gz"), 1000, 100)
    assert (names[0].name, names[9].name, len(names)) == ("a.b.01of10.geojson.gz", "a.b.10of10.geojson.gz", 10)
    assert geojson.pieces(Path("a.geojson"), 100, 100) == geojson.pieces(Path("a.geojson"), 0, 1) == [Path("a.geojson")]


def test_compressed_bytes_depend_on_the_text_alone(make_table: Make, master: Master, tmp_path: Path) -> None:
    path = master(make_table(50))
    for name in ("a.geojson", "a.geojson.gz", "b.geojson.gz"):
        geojson.write_geojson(path, tmp_path / name)
    packed = (tmp_path / "a.geojson.gz").read_bytes()
    assert packed == (tmp_path / "b.geojson.gz").read_bytes()
    assert packed[3:8] == bytes(5)  # no flags (no name), no time
    assert gzip.decompress(packed) == (tmp_path / "a.geojson").read_bytes()


def test_gzip_has_members_of_a_fixed_size_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MEMBER", 1000)
    content = np.random.default_rng(0).integers(32, 127, 3500, np.uint8).tobytes()
    for name, size in (("a", 7), ("b", 3500)):
        with stream.opened(tmp_path / name, True) as file:
            for start in range(0, len(content), size):
                file.write(content[start : start + size])
    packed = (tmp_path / "a").read_bytes()
    assert packed == (tmp_path / "b").read_bytes() and gzip.decompress(packed) == content
    assert packed.count(b"\x1f\x8b\x08") >= 4
    with stream.opened(tmp_path / "none", True):
        pass
    assert gzip.decompress((tmp_path / "none").read_bytes()) == b""


def test_small_batches_change_nothing(
    make_table: Make, master: Master, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = master(make_table(200, nuclei=True))
    geojson.write_geojson(path, tmp_path / "a.geojson")
    monkeypatch.setattr(geojson, "_ROWS", 7)
    geojson.write_geojson(path, tmp_path / "b.geojson")
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_errors(make_table: Make, master: Master, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a cells file"):
        geojson.write_geojson(tmp_path / "missing", tmp_path / "a.geojson")
    (tmp_path / "no").touch()
    with pytest.raises(OutputError, match="a file where a folder is expected"):
        geojson.write_geojson(master(make_table(3)), tmp_path / "no" / "a.geojson")


@pytest.mark.parametrize("split", [0, 400])
def test_full_disk_leaves_the_old_files(make_table: Make, master: Master, tiny_disk: Path, split: int) -> None:
    names = ["a.1of3.geojson", "a.2of3.geojson", "a.3of3.geojson"] if split else ["a.geojson"]
    for name in names:
        (tiny_disk / name).write_text("old")
    with pytest.raises(OutputError, match="the disk is full"):
        geojson.write_geojson(master(make_table(1000)), tiny_disk / "a.geojson", ExportSettings(split=split))
    assert sorted(os.listdir(tiny_disk)) == names
    assert {(tiny_disk / name).read_text() for name in names} == {"old"}


@given(
    st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 2), min_size=1, max_size=5),
    st.integers(0, 6),
    st.tuples(*[st.integers(0, 100_000)] * 2),
)
@settings(deadline=None)
def test_numbers_are_rounded_and_short(points: list[tuple[float, float]], decimals: int, origin: Any) -> None:
    x, y = np.array(points).T
    for raw, point in zip(text.point_coordinates(x, y, origin, decimals), points, strict=True):
        found = json.loads(raw)
        assert np.allclose(found, np.subtract(point, origin), rtol=0, atol=0.5000001 * 10**-decimals + 1e-9)
        shortest = (np.format_float_positional(value, trim="-") for value in found)
        assert raw == f"[{','.join(shortest)}]".encode()


@given(st.lists(st.floats(-1e10, 1e10) | st.sampled_from([-0.0, 0.00004, 0.5, 12.0, 1e10]), min_size=1, max_size=6))
@settings(deadline=None)
def test_numbers_of_objects_are_written_as_orjson_does(values: list[float]) -> None:
    row = np.round(np.array([values]), 4)
    names = [f'n"{k}' for k in range(len(values))]
    assert text.number_objects(row, names, 4) == [orjson.dumps(dict(zip(names, row[0].tolist(), strict=True)))]


def test_what_is_no_number_is_text_and_what_is_too_large_is_written_too(
    make_table: Make, master: Master, tmp_path: Path
) -> None:
    table, odd = make_table(4), [math.nan, math.inf, -math.inf, 3e30]
    place = table.schema.get_field_index("area_um2")
    geojson.write_geojson(master(table.set_column(place, table.schema.field(place), pa.array(odd, pa.float32()))),
                          tmp_path / "a.geojson")  # fmt: skip
    areas = [feature["properties"]["measurements"]["area_um2"] for feature in _load(tmp_path / "a.geojson")]
    assert sorted(map(str, areas)) == sorted(["NaN", "Infinity", "-Infinity", str(float(np.float32(3e30)))])
    assert text.number_objects(np.array([[math.nan, math.inf, -math.inf]]), ["a", "b", "c"], 4) == [
        b'{"a":"NaN","b":"Infinity","c":"-Infinity"}'
    ]


def test_polygon_text_of_holes_and_slices() -> None:
    holed = shapely.Polygon(shapely.box(0, 0, 9, 9).exterior.coords, [shapely.box(2, 2, 4, 4.25).exterior.coords])
    wkb = pa.array(shapely.to_wkb(np.array([shapely.box(5, 5, 6, 6), holed, holed]), byte_order=1), pa.binary())
    found = text.polygon_coordinates(wkb.slice(1, 1), (1, -1))
    expected = shapely.geometry.mapping(shapely.transform(holed, lambda xy: xy - (1, -1)))["coordinates"]
    assert len(found) == 1
    assert json.loads(found[0]) == json.loads(json.dumps(expected))
    assert text.polygon_coordinates(wkb[:0]) == []


@pytest.mark.parametrize(
    "wkb",
    [
        b"",
        shapely.to_wkb(shapely.Point(1, 2), byte_order=1),
        shapely.to_wkb(shapely.box(0, 0, 1, 1), byte_order=0),
        shapely.to_wkb(shapely.box(0, 0, 1, 1), byte_order=1)[:-1],
        shapely.to_wkb(shapely.box(0, 0, 1, np.nan), byte_order=1),
    ],
)
def test_other_geometry_is_refused(wkb: bytes) -> None:
    with pytest.raises(ValueError, match="not a little-endian WKB polygon"):
        text.polygon_coordinates(pa.array([wkb], pa.binary()))
