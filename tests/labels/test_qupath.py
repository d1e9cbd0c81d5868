"""QuPath's GeoJSON on a slide: regions become images, at the resolution that is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import shapely

from tests.conftest import Phantom
from tests.labels.scene import BOXES, HOLE, KINDS, by_number, expected, only, picture, refusal, ring, save
from wsipipe.labels import DatasetSpec, read_set
from wsipipe.slide import open_slide

PLAIN = dict.fromkeys(KINDS, "")


def feature(shape: Any, kind: str = "detection", classes: str = "", name: str = "", **more: Any) -> dict[str, Any]:
    """Return a feature as QuPath 0.4 and later write it."""
    properties: dict[str, Any] = {"objectType": kind, "isLocked": False, "measurements": []}
    if classes:
        properties["classification"] = {"name": classes, "color": [200, 0, 0]}
    if name:
        properties["name"] = name
    geometry = shapely.geometry.mapping(shape)
    return {"type": "Feature", "id": "f0", "geometry": geometry, "properties": properties} | more


def nuclei(typed: bool = True) -> list[dict[str, Any]]:
    shapes = {k: shapely.Polygon(ring(box), [ring(HOLE)] if k == 3 else []) for k, box in BOXES.items()}
    return [feature(shape, "detection", KINDS[k] if typed else "") for k, shape in shapes.items()]


def write(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


WHOLE = feature(shapely.box(0, 0, 50, 40), "annotation")


@pytest.mark.parametrize("form", ["collection", "list"])
def test_detections_in_an_annotation_on_a_picture(tmp_path: Path, form: str) -> None:
    save(tmp_path / "tile.png", picture())
    path = write(tmp_path / "tile.geojson", WHOLE, *nuclei())
    if form == "list":
        path.write_text(json.dumps([WHOLE, *nuclei()]))
    item = only(tmp_path)
    assert by_number(item) == expected() and (item.image == picture()).all() and item.name == "tile"
    assert only(tmp_path, mpp=0.4).mpp == 0.4


def test_what_lies_outside_the_region_is_not_annotated(tmp_path: Path) -> None:
    save(tmp_path / "tile.png", picture())
    triangle = feature(shapely.Polygon([(0, 0), (50, 0), (0, 40)]), "annotation", "Region*", name="corner")
    write(tmp_path / "tile.geojson", triangle, *nuclei(typed=False))
    item = only(tmp_path)
    assert item.name == "tile_corner" and item.labels.shape == (40, 50)
    assert item.labels[39, 25] == -1 and item.labels[20, 5] == 0
    assert (item.labels[2:8, 3:9] == item.labels[2, 3]).all() and item.labels[2, 3] > 0
    inside = {pixels for pixels in expected(PLAIN) if pixels[0] % 50 < 25 and pixels[0] < 500}
    assert len(inside) == 2 and inside <= by_number(item).keys()


def test_two_regions_are_two_images(tmp_path: Path) -> None:
    save(tmp_path / "tile.png", picture())
    left, right = (feature(shapely.box(x, 0, x + 25, 40), "annotation", "Region") for x in (0, 25))
    write(tmp_path / "tile.geojson", left, right, *nuclei())
    items = read_set(DatasetSpec(str(tmp_path)), "train")
    assert [(i.name, i.labels.shape) for i in items] == [("tile_region1", (40, 25)), ("tile_region2", (40, 25))]
    assert (items[1].image == picture()[:, 25:]).all() and items[1].types == ("Neoplastic",)


def test_cells_give_their_nucleus_and_ignored_classes_are_not_annotated(tmp_path: Path) -> None:
    save(tmp_path / "tile.png", picture())
    inner = shapely.geometry.mapping(shapely.box(*BOXES[1]))
    cell = feature(shapely.box(0, 0, 15, 15), "cell", "Tumor", nucleusGeometry=inner)
    fold = feature(shapely.box(20, 20, 30, 30), "annotation", "Ignore*")
    write(tmp_path / "tile.geojson", feature(shapely.box(0, 0, 50, 40), "annotation", "Region*"), cell, fold)
    item = only(tmp_path)
    assert item.types == ("Tumor",) and (item.labels == 1).sum() == 36 and (item.labels == -1).sum() == 100


def test_nuclei_drawn_as_annotations(tmp_path: Path) -> None:
    save(tmp_path / "tile.png", picture())
    drawn = [n | {"properties": n["properties"] | {"objectType": "annotation"}} for n in nuclei()]
    write(tmp_path / "tile.geojson", feature(shapely.box(0, 0, 50, 40), "annotation", "Region*"), *drawn)
    assert by_number(only(tmp_path)) == expected()


def test_objects_without_a_region_are_their_own(tmp_path: Path) -> None:
    save(tmp_path / "tile.png", picture())
    write(tmp_path / "tile.geojson", *nuclei())
    item = only(tmp_path)
    assert item.labels.shape == (38, 50) and sorted(item.types) == sorted(KINDS.values())


def test_regions_of_a_slide_at_the_working_resolution(phantom: Phantom, tmp_path: Path) -> None:
    slide = shutil.copy(phantom.path, tmp_path / "slide.tiff")
    box = (400, 400, 720, 660)
    ids, shapes = phantom.truth.polygons(box)
    features = [feature(shape, "detection") for shape in shapes]
    write(tmp_path / "slide.tiff.geojson", feature(shapely.box(*box), "annotation", "Region*"), *features)
    spec = DatasetSpec(str(tmp_path))
    (native,) = read_set(spec, "train")
    with open_slide(slide) as opened:
        assert (native.image == opened.read_region(0, 400, 400, 320, 260)).all()
    assert native.mpp == 0.5 and native.labels.max() == len(ids)
    truth = phantom.truth.instance_map(box)
    assert ((native.labels > 0) == (truth > 0)).mean() > 0.97
    (coarse,) = read_set(spec, "train", working_mpp=1.0)
    assert coarse.image.shape == (130, 160, 3) and coarse.mpp == 1.0
    assert ((coarse.labels > 0) == (native.labels[1::2, 1::2] > 0)).mean() > 0.95
    (asked,) = read_set(DatasetSpec(str(tmp_path), mpp=2.0), "train", working_mpp=1.0)
    assert asked.mpp == 2.0 and asked.image.shape == (65, 80, 3)


def test_bad_files(tmp_path: Path) -> None:
    path = write(tmp_path / "tile.geojson", WHOLE, *nuclei())
    assert "no picture tile.png" in refusal(tmp_path)
    save(tmp_path / "tile.png", picture())
    for broken in ("{", '{"features": [3]}', '{"features": [{"geometry": {"type": "Polygon"}}]}', '"text"'):
        path.write_text(broken)
        assert "tile.geojson: not GeoJSON as QuPath writes it" in refusal(tmp_path)
    write(path, feature(shapely.box(200, 200, 300, 300), "annotation", "Region*"))
    assert "lies outside the slide" in refusal(tmp_path)
    write(path)
    assert "holds no annotated image in the form 'qupath'" in refusal(tmp_path)
    (tmp_path / "tile.png").write_bytes(b"no picture")
    write(path, WHOLE, *nuclei())
    assert "cannot open" in refusal(tmp_path)
