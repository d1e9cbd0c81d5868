"""What a master file holds: its metadata, its columns, and cells of which each has an outline, a place and a name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from wsipipe.artifacts import from_json
from wsipipe.cells.measure import MEASURES
from wsipipe.errors import StoreError, in_words
from wsipipe.formats.table import BBOX
from wsipipe.geometry import FARTHEST, LARGEST, LONGEST

SLACK = 2.0
"""Base pixels by which an outline may leave the box that is stated for it: boxes are rounded."""
_TYPES: dict[str, pa.DataType] = {
    "cell_id": pa.string(),
    "geometry": pa.binary(),
    "x": pa.float64(),
    "y": pa.float64(),
    "class": pa.string(),
    "probability": pa.float32(),
    **{name: pa.float32() for name in MEASURES if name not in ("x", "y")},
    "oversize": pa.bool_(),
    "bbox": BBOX,
}
"""Columns that every master file has."""
_OPTIONAL = {"nucleus": pa.binary(), "class_probability": pa.float32()}


def expect(good: bool, where: str, what: str, value: object, wanted: str) -> None:
    """Refuse the file *where* unless *good*: *what* is *value*, and *wanted* was expected."""
    if not good:
        shown = str(value)[:60]
        raise StoreError(f"{where}: {what} is {shown}; expected {wanted}: the cells file was changed or damaged")


# --- metadata ---------------------------------------------------------------------------------------------------------


def about_of(raw: bytes, path: str) -> dict[str, Any]:
    """Return the metadata, whose every part has its type and range."""
    try:
        about: dict[str, Any] = from_json(raw)
    except ValueError as error:
        expected = "expected what wsipipe wrote: copy the file again"
        raise StoreError(f"{path}: the metadata 'wsipipe' is no JSON ({in_words(error)}); {expected}") from error
    expect(isinstance(about, dict), path, "the metadata", about, "an object")
    for key, (good, wanted) in _WANTED.items():
        expect(key in about and good(about[key]), path, key, about.get(key), wanted)
    for key, (good, wanted) in _MAYBE.items():
        expect(about.get(key) is None or good(about[key]), path, key, about.get(key), wanted)
    return about


def _numbers(count: int, low: float, high: float, whole: bool = False) -> Callable[[Any], bool]:
    """Return whether a value is a list of *count* numbers from *low* to *high*."""
    kinds = int if whole else (int, float)

    def test(value: Any) -> bool:
        good = isinstance(value, list) and len(value) == count
        return good and all(isinstance(v, kinds) and not isinstance(v, bool) and low <= v <= high for v in value)

    return test


def _is_size(value: Any) -> bool:
    return _numbers(2, 1, LONGEST, whole=True)(value) and math.prod(value) <= LARGEST


def _is_box(value: Any) -> bool:
    return _numbers(4, -1e9, 1e9)(value)


def _are_boxes(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_box, value))


def _are_classes(value: Any) -> bool:
    colour = _numbers(3, 0, 255, whole=True)
    return isinstance(value, dict) and all(rgb is None or colour(rgb) for rgb in value.values())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_area(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e18


def _are_settings(value: Any) -> bool:
    """Return whether *value* holds sections, of which that of tissue names a way or a file."""
    sections = isinstance(value, dict) and all(isinstance(section, dict) for section in value.values())
    return sections and isinstance(value.get("tissue", {}).get("tissue", ""), str)


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


_RESOLUTION = _numbers(2, 1e-3, 1e3), "two numbers in µm/px"
_WANTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "fingerprint": (_is(str), "text"),
    "size": (_is_size, f"width and height in px, up to {LONGEST:,}"),
    "bounds": (lambda value: value is None or _is_box(value), "a box or null"),
    "mpp": _RESOLUTION,
    "mpp_source": (_is(str), "text"),
    "cells": (_is_count, "a number of cells"),
    "classes": (_are_classes, "names with colours"),
}
_MAYBE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "working_mpp": _RESOLUTION,
    "analysed": (_is_box, "a box"),
    "bad_boxes": (_are_boxes, "boxes"),
    "tissue_area_um2": (_is_area, "an area in µm²"),
    "oversize": (_is_count, "a number of cells"),
    "plane": (_is_count, "the number of a focal plane"),
    "settings": (_are_settings, "settings by section"),
    "model": (_is(dict), "an object"),
    "recipe": (_is(dict), "an object"),
    "stain_vectors": (_is(dict), "an object"),
}


# --- cells ------------------------------------------------------------------------------------------------------------


def check_schema(schema: pa.Schema, path: str) -> None:
    """Refuse columns that are absent, twice there, or of another type."""
    twice = len(set(schema.names)) < len(schema.names)
    expect(not twice, path, "the list of columns", ", ".join(schema.names), "each name once")
    for name, kind in _TYPES.items():
        found = schema.field(name).type if name in schema.names else "absent"
        expect(found == kind, path, f"column {name}", found, str(kind))
    for name, kind in _OPTIONAL.items():
        if name in schema.names:
            expect(schema.field(name).type == kind, path, f"column {name}", schema.field(name).type, str(kind))


def check_rows(table: pa.Table, about: Mapping[str, Any], where: str) -> None:
    """Refuse cells without outline, place or identity, or of a class that the file does not name."""
    table.validate(full=True)
    for name in ("cell_id", "geometry", "x", "y", "bbox", "oversize"):
        expect(not table[name].null_count, where, f"column {name}", "absent in some rows", "a value in each")
    classes = set(pc.unique(table["class"]).to_pylist()) - {None}
    expect(classes <= set(about["classes"]), where, "class", classes - set(about["classes"]), "one of the metadata")
    xy = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()])
    expect(bool((np.abs(xy) < FARTHEST).all()), where, "the place of a cell", "on no slide", "level-0 pixels")
    box = table["bbox"].combine_chunks()
    boxes = np.column_stack([box.field(side.name).to_numpy(False) for side in BBOX]).astype(np.float64)
    for column in ("geometry", "nucleus"):
        if column in table.schema.names:
            _check_outlines(table[column].to_numpy(), boxes, f"{where}, column {column}")


def _check_outlines(wkb: NDArray[np.object_], boxes: NDArray[np.float64], where: str) -> None:
    polygons = shapely.from_wkb(wkb)
    good = shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON.value
    finite = np.isfinite(shapely.get_coordinates(polygons)).all()
    expect(bool(good.all() and finite), where, "an outline", "no polygon of finite numbers", "polygons")
    bounds = shapely.bounds(polygons)
    within = (bounds[:, :2] >= boxes[:, :2] - SLACK).all() and (bounds[:, 2:] <= boxes[:, 2:] + SLACK).all()
    expect(bool(within), where, "an outline", "outside its box", "one inside")
