"""Areas of a slide as annotations, of which QuPath refuses none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import shapely

from tests.formats.test_geojson import SCHEMA
from wsipipe.formats.annotations import Annotation, write_annotations

HOLED = shapely.box(0, 0, 90, 60).difference(shapely.box(20, 20, 40, 40))
PARTS = shapely.MultiPolygon([shapely.box(100, 100, 140, 130), shapely.box(200.123456, 100, 240, 130)])
AREAS = [
    Annotation("A-1", "TMA core", (0, 150, 60), HOLED, {"confidence": 0.5, "pieces": 2.0, "share": math.nan}),
    Annotation("A-2", "TMA core: torn", (235, 130, 0), PARTS),
    Annotation("none", "TMA core", (0, 150, 60), shapely.Polygon()),
]
ABOUT = {"size": (1000, 800), "bounds": None, "fingerprint": "f"}


def test_annotations_are_as_qupath_takes_them(tmp_path: Path) -> None:
    write_annotations(tmp_path / "a.geojson", AREAS, ABOUT)
    content = json.loads((tmp_path / "a.geojson").read_text())
    SCHEMA.validate(content)
    first, second = content["features"]
    assert first["properties"]["measurements"] == {"confidence": 0.5, "pieces": 2.0, "share": "NaN"}
    assert [f["properties"]["name"] for f in (first, second)] == ["A-1", "A-2"]
    assert shapely.from_geojson(json.dumps(first["geometry"])).equals(HOLED)
    assert second["geometry"]["type"] == "MultiPolygon" and second["geometry"]["coordinates"][1][0][0][0] in (
        200.12,
        240,
    )
    assert first["id"] != second["id"]


def test_the_same_areas_give_the_same_bytes_and_none_an_empty_file(tmp_path: Path) -> None:
    for name, areas in (("a", AREAS), ("b", AREAS), ("c", [])):
        write_annotations(tmp_path / name, areas, ABOUT)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert json.loads((tmp_path / "c").read_text())["features"] == []


def test_coordinates_count_from_where_qupath_crops(tmp_path: Path) -> None:
    write_annotations(tmp_path / "a", AREAS[:1], ABOUT | {"bounds": (30, 20, 500, 400)})
    shape = shapely.from_geojson(json.dumps(json.loads((tmp_path / "a").read_text())["features"][0]["geometry"]))
    assert shape.bounds == (-30, -20, 60, 40)
