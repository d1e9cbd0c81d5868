"""The one door to a master file: whoever reads one has it checked first, whole, once.

What comes from elsewhere may be cut, flipped or edited. Behind this door columns, types, every byte (by a digest),
outlines and metadata are as :mod:`wsipipe.formats.parquet` writes them, so that nobody else has to ask.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsipipe.artifacts import from_json
from wsipipe.artifacts.plain import refuse_special
from wsipipe.cells.measure import MEASURES
from wsipipe.errors import StoreError, in_words
from wsipipe.formats.table import BBOX
from wsipipe.geometry import FARTHEST

SEAL, OPEN = "digest", "0" * 64
"""Key of the metadata that holds the SHA-256 of the file, and what stands in its place while that is computed."""
LONGEST, LARGEST = 4_000_000, 1e12
"""Side in px and area in px² that no slide exceeds."""
KEPT = 64
"""Files whose state is remembered."""
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
_EXPORTS = (".geojson.gz", ".geojson", ".csv.gz", ".csv", ".gpkg", ".json.gz", ".json", ".h5", ".html")
"""Endings of what is made of a master file, and is none."""
_OPTIONAL = {"nucleus": pa.binary(), "class_probability": pa.float32()}


def seal(file: IO[bytes]) -> None:
    """Put the digest of a finished master file, whose metadata has :data:`OPEN` under :data:`SEAL`, in its place."""
    place = _place(file, OPEN)
    found = _digest(file, place)
    file.seek(place)
    file.write(found)


def _place(file: IO[bytes], value: str) -> int:
    """Return where the digest *value* stands in the metadata at the end of *file*."""
    end = file.seek(-8, os.SEEK_END)
    start = file.seek(max(0, end - int.from_bytes(file.read(4), "little")))
    return start + max(0, file.read().find(f'"{SEAL}":"{value}"'.encode())) + len(SEAL) + 4


def _digest(file: IO[bytes], place: int) -> bytes:
    """Return the digest of *file*, in hexadecimal, with nothing but zeros at *place*."""
    file.seek(0)
    sha, left = hashlib.sha256(), place
    while left and (piece := file.read(min(left, 1 << 22))):
        sha.update(piece)
        left -= len(piece)
    sha.update(file.read(len(OPEN)) and OPEN.encode())
    while piece := file.read(1 << 22):
        sha.update(piece)
    return sha.hexdigest().encode()


def check_master(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a master file says of itself, after a look at all that is in it.

    Raises
    ------
    StoreError
        When *path* is not a master file of wsipipe, or not as it was written.
    """
    name = os.fspath(path)
    _refuse_export(name)
    try:
        refuse_special(name)
        stamp = _stamp(name)
        raw = _WRITTEN.get(stamp) or _checked(name, stamp)
    except (OSError, UnicodeError, pa.ArrowException, shapely.errors.ShapelyError) as error:
        reason = in_words(error)
        raise StoreError(f"{name} is not a cells file, or it is damaged: {reason}; copy it again") from error
    about: dict[str, Any] = from_json(raw)
    return about


def digest_of(path: str | os.PathLike[str]) -> str:
    """Return the digest that a master file states of itself; "" of one that was written before there was any.

    Raises
    ------
    StoreError
    """
    check_master(path)
    found = _about((pq.read_metadata(path).metadata or {})[b"wsipipe"], os.fspath(path)).get(SEAL, "")
    return str(found)


def _refuse_export(name: str) -> None:
    """Say what to give in place of a file that was made of a cells file, by its ending."""
    ending = next((end for end in _EXPORTS if name.lower().endswith(end)), None)
    if ending is None or not os.path.isfile(name):
        return
    beside = name[: -len(ending)] + ".parquet"
    hint = f"give {beside}" if os.path.isfile(beside) else "give the .parquet of the same run"
    if ending.startswith(".geojson"):
        hint += f", or make one of it: `wsipipe measure {name} --slide SLIDE -o cells.parquet`"
    raise StoreError(f"{name} is not a cells file (.parquet) but {ending[1:]}; {hint}")


Stamp = tuple[int, int, int, int]
_WRITTEN: OrderedDict[Stamp, bytes] = OrderedDict()
"""Metadata, in JSON, of the files that this process has written, by what tells a file and its state."""


def vouch(path: str | os.PathLike[str]) -> None:
    """Note that this process has just written and sealed the file at *path*: it need not be looked at again.

    It gets a time that is finer than what a file system notes, so that no change however soon has the same one.
    """
    name, now = os.fspath(path), time.time_ns()
    with contextlib.suppress(OSError):
        os.utime(name, ns=(now, now))
        _WRITTEN[_stamp(name)] = _stated((pq.read_metadata(name).metadata or {})[b"wsipipe"], name)
        while len(_WRITTEN) > KEPT:
            _WRITTEN.popitem(last=False)


def _stamp(path: str) -> Stamp:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _stated(raw: bytes, path: str) -> bytes:
    """Return what metadata say of a file, without its digest."""
    return json.dumps({key: value for key, value in _about(raw, path).items() if key != SEAL}).encode()


@lru_cache(maxsize=KEPT)
def _checked(path: str, _stamp: Stamp) -> bytes:
    """Return the metadata, in JSON, of a file that passes."""
    with pq.ParquetFile(path) as file:
        raw = (file.metadata.metadata or {}).get(b"wsipipe")
        if raw is None:
            raise StoreError(f"{path} is Parquet, but not a cells file of wsipipe (no 'wsipipe' metadata)")
        about = _about(raw, path)
        if SEAL in about:
            with open(path, "rb") as stream:
                found = _digest(stream, _place(stream, about[SEAL])).decode()
            _expect(about[SEAL] == found, path, "the digest", found, str(about[SEAL]))
        _check_schema(file.schema_arrow, path)
        _expect(about["cells"] == file.metadata.num_rows, path, "cells", about["cells"], f"{file.metadata.num_rows}")
        for i in range(file.metadata.num_row_groups):
            _check_rows(file.read_row_group(i), about, f"{path}, row group {i}")
    return _stated(raw, path)


def _expect(good: bool, where: str, what: str, value: object, wanted: str) -> None:
    if not good:
        shown = str(value)[:60]
        raise StoreError(f"{where}: {what} is {shown}; expected {wanted}: the cells file was changed or damaged")


# --- metadata ---------------------------------------------------------------------------------------------------------


def _about(raw: bytes, path: str) -> dict[str, Any]:
    """Return the metadata, whose every part has its type and range."""
    try:
        about: dict[str, Any] = from_json(raw)
    except ValueError as error:
        expected = "expected what wsipipe wrote: copy the file again"
        raise StoreError(f"{path}: the metadata 'wsipipe' is no JSON ({in_words(error)}); {expected}") from error
    _expect(isinstance(about, dict), path, "the metadata", about, "an object")
    for key, (good, wanted) in _WANTED.items():
        _expect(key in about and good(about[key]), path, key, about.get(key), wanted)
    for key, (good, wanted) in _MAYBE.items():
        _expect(about.get(key) is None or good(about[key]), path, key, about.get(key), wanted)
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


def _check_schema(schema: pa.Schema, path: str) -> None:
    twice = len(set(schema.names)) < len(schema.names)
    _expect(not twice, path, "the list of columns", ", ".join(schema.names), "each name once")
    for name, kind in _TYPES.items():
        found = schema.field(name).type if name in schema.names else "absent"
        _expect(found == kind, path, f"column {name}", found, str(kind))
    for name, kind in _OPTIONAL.items():
        if name in schema.names:
            _expect(schema.field(name).type == kind, path, f"column {name}", schema.field(name).type, str(kind))


def _check_rows(table: pa.Table, about: Mapping[str, Any], where: str) -> None:
    """Refuse cells without outline, place or identity, or of a class that the file does not name."""
    table.validate(full=True)
    for name in ("cell_id", "geometry", "x", "y", "bbox", "oversize"):
        _expect(not table[name].null_count, where, f"column {name}", "absent in some rows", "a value in each")
    classes = set(pc.unique(table["class"]).to_pylist()) - {None}
    _expect(classes <= set(about["classes"]), where, "class", classes - set(about["classes"]), "one of the metadata")
    xy = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()])
    _expect(bool((np.abs(xy) < FARTHEST).all()), where, "the place of a cell", "on no slide", "level-0 pixels")
    box = table["bbox"].combine_chunks()
    boxes = np.column_stack([box.field(side.name).to_numpy(False) for side in BBOX]).astype(np.float64)
    for column in ("geometry", "nucleus"):
        if column in table.schema.names:
            _check_outlines(table[column].to_numpy(), boxes, f"{where}, column {column}")


def _check_outlines(wkb: NDArray[np.object_], boxes: NDArray[np.float64], where: str) -> None:
    polygons = shapely.from_wkb(wkb)
    good = shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON.value
    finite = np.isfinite(shapely.get_coordinates(polygons)).all()
    _expect(bool(good.all() and finite), where, "an outline", "no polygon of finite numbers", "polygons")
    bounds = shapely.bounds(polygons)
    within = (bounds[:, :2] >= boxes[:, :2] - SLACK).all() and (bounds[:, 2:] <= boxes[:, 2:] + SLACK).all()
    _expect(bool(within), where, "an outline", "outside its box", "one inside")
