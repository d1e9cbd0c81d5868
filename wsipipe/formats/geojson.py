"""Cells as GeoJSON that QuPath imports as objects, derived from the master file in bounded memory."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from wsipipe.artifacts import atomic_path
from wsipipe.formats.colours import class_colours
from wsipipe.formats.columns import flag_names, measurement_names, numbers, qupath_name
from wsipipe.formats.parquet import metadata, row_groups
from wsipipe.formats.stream import opened, separated
from wsipipe.formats.text import number_objects, point_coordinates, polygon_coordinates
from wsipipe.geometry import qupath_origin
from wsipipe.settings import ExportSettings
from wsipipe.units import Box, Pair

_ROWS = 16384
_MEASUREMENT_DECIMALS = 4
_NUCLEUS = b'},"nucleusGeometry":{"type":"Polygon","coordinates":'
_UNREADABLE = {"name": "Unreadable", "color": [128, 128, 128]}


def write_geojson(
    master: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: ExportSettings | None = None,
    areas: Sequence[bytes] = (),
) -> list[Path]:
    """Write the cells of a master file as GeoJSON for QuPath and return the files written, in order.

    Parameters
    ----------
    master : path
        From :func:`wsipipe.formats.parquet.merge_parts`.
    out : path
        Ends in ``.geojson``, or in ``.geojson.gz`` for a compressed one. When ``settings.split`` makes several files
        these are ``NAME.1of3.geojson``, ``NAME.2of3.geojson``, ... and appear together.
    settings : ExportSettings, optional
    areas : sequence of bytes
        Features (:func:`wsipipe.formats.annotations.feature_of`) that stand before the cells of the first file.

    Returns
    -------
    list of Path

    Raises
    ------
    StoreError
        When *master* is not a master file of wsipipe.
    OutputError
    """
    settings = settings or ExportSettings()
    about = metadata(master)
    style = _Style.of(about, settings)
    paths = pieces(Path(out), int(about["cells"]), settings.split)
    features = (feature for table in row_groups(master) for batch in _batches(table) for feature in style.cells(batch))
    with contextlib.ExitStack() as stack:
        for i, path in enumerate(paths):
            extra = [] if i else list(areas)
            if settings.unreadable and i == 0:
                extra += style.unreadable(about.get("bad_boxes", ()))
            temporary = stack.enter_context(atomic_path(path))
            _write_collection(temporary, path.name.endswith(".gz"), extra, features, settings.split or None)
    return paths


def pieces(out: Path, cells: int, split: int) -> list[Path]:
    """Return the names of the files that *cells* objects go into, at most *split* (0: any number) in each."""
    count = max(1, -(-cells // split)) if split else 1
    if count == 1:
        return [out]
    stem, dot, suffix = out.name.partition(".geojson")
    digits = len(str(count))
    return [out.with_name(f"{stem}.{i:0{digits}d}of{count}{dot}{suffix}") for i in range(1, count + 1)]


@dataclass(frozen=True)
class _Style:
    """How one export writes an object."""

    origin: Pair
    decimals: int
    points: bool
    classes: Mapping[str | None, bytes]
    stains: Mapping[str, str]

    @classmethod
    def of(cls, about: Mapping[str, Any], settings: ExportSettings) -> _Style:
        colours = class_colours(about.get("classes") or {}).items()
        classes: dict[str | None, bytes] = {None: b""}
        for name, rgb in colours:
            classes[name] = b'"classification":' + orjson.dumps({"name": name, "color": rgb}) + b","
        origin, stains = qupath_origin(about["size"], about["bounds"]), about.get("stain_vectors") or {}
        return cls(origin, settings.decimals, settings.points, classes, stains)

    def cells(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        """Yield one Feature for each row."""
        shapes, kind, text = self._geometry(batch)
        nuclei = self._polygons(batch, "nucleus") if kind == "cell" else None
        columns = batch["cell_id"].to_pylist(), batch["class"].to_pylist(), _measurements(batch, self.stains)
        geometry = b',"geometry":{"type":"' + shapes.encode() + b'","coordinates":'
        properties = b'},"properties":{"objectType":"' + kind.encode() + b'",'
        for i, (id_, name, measurements) in enumerate(zip(*columns, strict=True)):
            place = geometry, text[i], *((_NUCLEUS, nuclei[i]) if nuclei else ()), properties
            head = b'{"type":"Feature","id":', orjson.dumps(id_)
            yield b"".join((*head, *place, self.classes[name], b'"measurements":', measurements, b"}}"))

    def unreadable(self, boxes: Sequence[Box]) -> list[bytes]:
        """Return an annotation for each box (base pixels) that could not be read."""
        properties = {"objectType": "annotation", "classification": _UNREADABLE, "isLocked": True}
        ox, oy = self.origin
        features = []
        for x0, y0, x1, y1 in boxes:
            ring = [[x - ox, y - oy] for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))]
            shape = {"type": "Polygon", "coordinates": [ring]}
            features.append(orjson.dumps({"type": "Feature", "geometry": shape, "properties": properties}))
        return features

    def _geometry(self, batch: pa.RecordBatch) -> tuple[str, str, list[bytes]]:
        """Return the geometry type, QuPath's object type, and the coordinates of each object."""
        if self.points:
            xy = batch["x"].to_numpy(), batch["y"].to_numpy()
            return "Point", "detection", point_coordinates(*xy, self.origin, self.decimals)
        kind = "cell" if "nucleus" in batch.schema.names else "detection"
        return "Polygon", kind, self._polygons(batch, "geometry")

    def _polygons(self, batch: pa.RecordBatch, column: str) -> list[bytes]:
        return polygon_coordinates(batch[column], self.origin, self.decimals)


def _batches(table: pa.Table) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = table.to_batches(max_chunksize=_ROWS)
    return batches


def _measurements(batch: pa.RecordBatch, stains: Mapping[str, str]) -> list[bytes]:
    """Return the JSON of measurements and flags (0, 1) of each row; what is not a number as the text QuPath reads."""
    columns = [*measurement_names(batch.schema), *flag_names(batch.schema)]
    values, names = numbers(batch, columns, _MEASUREMENT_DECIMALS), [qupath_name(name, stains) for name in columns]
    if not (np.abs(values) >= 1e15 / 10**_MEASUREMENT_DECIMALS)[np.isfinite(values)].any():
        return number_objects(values, names, _MEASUREMENT_DECIMALS)
    rows: list[dict[str, float | str]] = [dict(zip(names, row, strict=True)) for row in values.tolist()]
    for i, j in np.argwhere(~np.isfinite(values)).tolist():
        value = values[i, j]
        rows[i][names[j]] = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return [orjson.dumps(row) for row in rows]


def _write_collection(
    path: Path, compressed: bool, first: Sequence[bytes], features: Iterator[bytes], most: int | None
) -> None:
    """Write a FeatureCollection of *first* and up to *most* of the *features* that are left."""
    with opened(path, compressed) as stream:
        stream.write(b'{"type":"FeatureCollection","features":[\n')
        for text in separated(itertools.chain(first, itertools.islice(features, most))):
            stream.write(text)
        stream.write(b"\n]}\n")
