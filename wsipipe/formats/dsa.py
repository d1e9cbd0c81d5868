"""Cells as an annotation of the Digital Slide Archive (HistomicsUI), derived from the master file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import shapely

from wsipipe.artifacts import atomic_path
from wsipipe.formats.colours import NO_CLASS, Rgb, class_colours
from wsipipe.formats.columns import flag_names, measurement_names, numbers
from wsipipe.formats.parquet import metadata, row_groups
from wsipipe.formats.stream import opened, separated
from wsipipe.settings import ExportSettings

FILL = 0.15
"""Opacity of the inside of an outline."""
UNTYPED = "Cell"
"""Group of cells without a class."""


def write_dsa(
    master: str | os.PathLike[str], out: str | os.PathLike[str], settings: ExportSettings | None = None
) -> list[Path]:
    """Write the cells of a master file as one DSA annotation document (JSON; gzip for ``.gz``); return the file.

    An element per cell: a closed polyline (with ``settings.points`` a point) in base pixels of the whole slide, in the
    group and colour of its class, with the cell's identity and measurements under ``user``.

    Raises
    ------
    StoreError
        When *master* is not a master file of wsipipe.
    OutputError
    """
    settings, path, about = settings or ExportSettings(), Path(out), metadata(master)
    colours = class_colours(about.get("classes") or {})
    head = {
        "name": path.name.partition(".")[0] or "cells",
        "description": f"{about['cells']} cells found by wsipipe {about.get('version', '')}".rstrip(),
        "attributes": {"wsipipe": {"fingerprint": about["fingerprint"], "mpp": about["mpp"]}},
    }
    elements = (e for table in row_groups(master) for e in _elements(table, colours, settings))
    with atomic_path(path) as temporary, opened(temporary, path.name.endswith(".gz")) as stream:
        stream.write(orjson.dumps(head)[:-1] + b',"elements":[\n')
        for text in separated(elements):
            stream.write(text)
        stream.write(b"\n]}\n")
    return [path]


def _elements(table: pa.Table, colours: Mapping[str, Rgb], settings: ExportSettings) -> Iterator[bytes]:
    """Yield the element of each row."""
    names = [*measurement_names(table.schema), *flag_names(table.schema)]
    values = numbers(table, names, 4)
    shapes, centres = _places(table, settings)
    ids, classes = table["cell_id"].to_pylist(), table["class"].to_pylist()
    for i, (id_, name) in enumerate(zip(ids, classes, strict=True)):
        rgb = colours.get(name, NO_CLASS)
        line, group = f"rgb({rgb[0]},{rgb[1]},{rgb[2]})", name or UNTYPED
        element: dict[str, Any] = {"lineColor": line, "lineWidth": 2, "group": group, "label": {"value": group}}
        if settings.points:
            element |= {"type": "point", "center": centres[i]}
        else:
            fill = f"rgba({rgb[0]},{rgb[1]},{rgb[2]},{FILL})"
            element |= {"type": "polyline", "closed": True, "points": shapes[i], "fillColor": fill}
        user = {"cell_id": id_, **dict(zip(names, values[i].tolist(), strict=True))}
        yield orjson.dumps(element | {"user": user}, option=orjson.OPT_SERIALIZE_NUMPY)


def _places(table: pa.Table, settings: ExportSettings) -> tuple[list[Any], list[Any]]:
    """Return the vertices (k, 3) of each outline, the first not repeated, and the centres, as x, y, 0."""
    if settings.points:
        xy = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy(), np.zeros(table.num_rows)])
        return [], xy.round(settings.decimals).tolist()
    rings = shapely.get_exterior_ring(shapely.from_wkb(table["geometry"].to_numpy()))
    xy, owner = shapely.get_coordinates(rings, return_index=True)
    xyz = np.column_stack([xy.round(settings.decimals), np.zeros(len(xy))])
    ends = np.cumsum(np.bincount(owner, minlength=len(rings)))
    return [xyz[a : b - 1] for a, b in zip([0, *ends[:-1].tolist()], ends.tolist())], []
