"""Corrections of cells by hand, in a file beside the cells, which stay as they are; and the one way to apply them.

``cells.corrections.geojson`` of ``cells.parquet`` is GeoJSON that QuPath opens, too. Each feature is one cell: ``id``
is its identity, ``geometry`` its outline in QuPath's pixels, and ``correction`` among its ``properties`` what was done:

- ``added``: drawn by hand; of the class ``classification``, if any;
- ``relabelled``: of that class (without one: of none) in place of what it was found to be (``was``);
- ``deleted``: no cell. Its class is ``Deleted*``, which QuPath and ``wsipipe classify --fit`` pass over.

The member ``wsipipe`` says of which cells they are: ``cells`` (the file's name), ``digest`` (what that file states of
itself), ``fingerprint`` (of the slide).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsipipe.artifacts import digest
from wsipipe.artifacts.plain import from_json, text_of
from wsipipe.cells.measure import perimeter_um
from wsipipe.errors import SettingsError, StoreError, in_words
from wsipipe.formats.annotations import in_qupath, write_features
from wsipipe.formats.colours import Rgb, class_colours
from wsipipe.formats.imported import MALFORMED, Drawn, drawn_of, outline_of, table_of
from wsipipe.formats.master import digest_of
from wsipipe.formats.parquet import CellWriter, metadata, row_groups
from wsipipe.formats.subset import COUNTS
from wsipipe.formats.table import KEYS
from wsipipe.geometry import qupath_origin

ADDED, RELABELLED, DELETED = WHATS = ("added", "relabelled", "deleted")
ENDING = ".corrections.geojson"
_GONE = {"name": "Deleted*", "color": [120, 120, 120]}


@dataclass(frozen=True, eq=False)
class Correction:
    """What was done to a cell.

    Attributes
    ----------
    what : str
        One of :data:`WHATS`.
    shape : shapely.Polygon
        Its outline in base pixels.
    kind, was : str
        Its class now and before, "" for none.
    """

    id: str
    what: str
    shape: shapely.Polygon
    kind: str = ""
    was: str = ""


@dataclass(eq=False)
class Corrections:
    """Corrections by the identity of the cell, in the order in which they were first made; colours of their classes."""

    by_id: dict[str, Correction] = field(default_factory=dict)
    colours: dict[str, Rgb] = field(default_factory=dict)

    def count(self, what: str) -> int:
        """Return how many cells were *what*."""
        return sum(correction.what == what for correction in self.by_id.values())

    def told(self) -> str:
        """Return in words how many cells were corrected."""
        counts = [f"{count:,} {what}" for what in WHATS if (count := self.count(what))]
        return ", ".join(counts) or "none"

    def kinds(self) -> list[str]:
        """Return the classes that cells were given, each once."""
        return list(dict.fromkeys(c.kind for c in self.by_id.values() if c.kind))


def path_beside(master: str | os.PathLike[str]) -> Path:
    """Return where the corrections of a master file are kept."""
    path = Path(master)
    return path.with_name(path.name.removesuffix(".parquet") + ENDING)


def read_corrections(path: Path, master: str | os.PathLike[str]) -> Corrections:
    """Return the corrections in a file, which must be of the cells in *master*.

    Raises
    ------
    StoreError
        When it is no such file.
    SettingsError
        When it belongs to other cells.
    """
    about = metadata(master)
    try:
        content = from_json(text_of(path))
        of, features = content["wsipipe"], content["features"]
        own = str(of["digest"]), str(of["fingerprint"])
        origin = qupath_origin(about["size"], about["bounds"])
        found = [(drawn_of(f, origin), f["properties"]) for f in features]
        made = {d.id: _correction(d, properties) for d, properties in found}
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MALFORMED as error:
        raise StoreError(f"{path}: no corrections as the viewer writes them ({in_words(error)})") from error
    if own != (digest_of(master), about["fingerprint"]):
        raise SettingsError(
            f"{path} holds corrections of other cells (digest {own[0][:12] or 'none'}…) than {os.fspath(master)} "
            f"(digest {digest_of(master)[:12]}…): if the cells were found anew since, move "
            "that file away or delete it; otherwise give the cells that it was made on"
        )
    return Corrections(made, {d.kind: d.colour for d, p in found if d.colour and p["correction"] != DELETED})


def _correction(drawn: Drawn, properties: Mapping[str, Any]) -> Correction:
    what, shape = str(properties["correction"]), outline_of(drawn.shape)
    if what not in WHATS or not drawn.id or shape.is_empty:
        raise ValueError(f"cell {drawn.id!r} is {what!r}, expected {', '.join(WHATS)}, and an outline")
    return Correction(drawn.id, what, shape, "" if what == DELETED else drawn.kind, str(properties.get("was") or ""))


def write_corrections(path: Path, master: str | os.PathLike[str], corrections: Corrections) -> None:
    """Write *corrections* of the cells in *master*, atomically; without any the file goes.

    Raises
    ------
    OutputError
    """
    if not corrections.by_id:
        path.unlink(missing_ok=True)
        return
    about = metadata(master)
    of = {"cells": Path(master).name, "digest": digest_of(master), "fingerprint": about["fingerprint"]}
    colours = class_colours(dict.fromkeys(corrections.kinds()) | _colours(about) | corrections.colours)
    features = [_feature(correction, colours, about) for correction in corrections.by_id.values()]
    write_features(path, features, of)


def _colours(about: Mapping[str, Any]) -> dict[str, Rgb]:
    return class_colours(about.get("classes") or {})


def _feature(correction: Correction, colours: Mapping[str, Rgb], about: Mapping[str, Any]) -> bytes:
    properties: dict[str, Any] = {"objectType": "detection", "correction": correction.what}
    if correction.what == DELETED:
        properties["classification"] = _GONE
    elif correction.kind:
        properties["classification"] = {"name": correction.kind, "color": list(colours[correction.kind])}
    if correction.was:
        properties["was"] = correction.was
    geometry = orjson.Fragment(shapely.to_geojson(in_qupath(correction.shape, about)).encode())
    return orjson.dumps({"type": "Feature", "id": correction.id, "geometry": geometry, "properties": properties})


def write_corrected(master: str | os.PathLike[str], corrections: Corrections, out: str | os.PathLike[str]) -> None:
    """Write the cells of *master* as *corrections* say, as the master file *out*.

    A relabelled cell's class has probability 1; a drawn one has size and place, other measurements when it is measured.

    Raises
    ------
    StoreError
        When a cell that was corrected is not among them.
    OutputError
    """
    about, schema = metadata(master), pq.read_schema(master).remove_metadata()
    known = dict.fromkeys(corrections.kinds()) | corrections.colours | _colours(about)
    kept = {key: value for key, value in about.items() if key not in COUNTS} | {"classes": class_colours(known)}
    counts = {what: corrections.count(what) for what in WHATS}
    kept["corrected"] = counts | {"digest": digest([(c.id, c.what, c.kind) for c in corrections.by_id.values()])}
    changed = {c.id: c for c in corrections.by_id.values() if c.what != ADDED}
    drawn = [c for c in corrections.by_id.values() if c.what == ADDED]
    ids, met = pa.array(list(changed), pa.string()), 0
    with CellWriter(out, schema, kept) as writer:
        for table in row_groups(master):
            rows = np.flatnonzero(pc.is_in(table["cell_id"], ids).to_numpy())
            met += len(rows)
            writer.write(_changed(table, rows, changed) if len(rows) else table)
        if drawn:
            writer.write(_drawn(drawn, schema, about))
        if met != len(changed):
            raise StoreError(
                f"{len(changed) - met} of {len(changed)} corrected cells are not in {os.fspath(master)}; give the "
                "cells that they were made on"
            )


def _changed(table: pa.Table, rows: NDArray[np.int64], changed: Mapping[str, Correction]) -> pa.Table:
    """Return *table* with *rows* as they were corrected."""
    done = [changed[id_] for id_ in table["cell_id"].take(rows).to_pylist()]
    classes = table["class"].to_pylist()
    for row, correction in zip(rows.tolist(), done, strict=True):
        classes[row] = correction.kind or None
    table = table.set_column(table.schema.get_field_index("class"), "class", pa.array(classes, pa.string()))
    if "class_probability" in table.schema.names:
        values = table["class_probability"].to_numpy().copy()
        values[rows] = [1.0 if correction.kind else np.nan for correction in done]
        place = table.schema.get_field_index("class_probability")
        table = table.set_column(place, "class_probability", pa.array(values, pa.float32()))
    keep = np.ones(table.num_rows, np.bool_)
    keep[rows] = [correction.what != DELETED for correction in done]
    return table.filter(pa.array(keep))


def _drawn(drawn: list[Correction], schema: pa.Schema, about: Mapping[str, Any]) -> pa.Table:
    """Return cells that were drawn, in the columns of *schema*."""
    objects = [Drawn(c.id, c.shape, None, c.kind, None, {}, role="detection") for c in drawn]
    shapes, mpp = np.array([c.shape for c in drawn], np.object_), (about["mpp"][0], about["mpp"][1])
    made = table_of(objects, shapes, {"working_mpp": mpp, **about})
    hull = shapely.area(shapely.convex_hull(shapes))
    known = {
        "area_um2": shapely.area(shapes) * mpp[0] * mpp[1],
        "perimeter_um": perimeter_um(shapes, mpp),
        "solidity": shapely.area(shapes) / hull,
        "class_probability": np.where([bool(c.kind) for c in drawn], 1.0, np.nan),
    }
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    for entry in schema:
        if entry.name in known:
            columns[entry.name] = pa.array(known[entry.name], entry.type)
        elif entry.name == "nucleus":
            columns[entry.name] = made["geometry"]
        elif entry.name in made.schema.names:
            columns[entry.name] = made[entry.name]
        elif pa.types.is_boolean(entry.type):
            columns[entry.name] = pa.array([False] * len(drawn), entry.type)
        else:
            columns[entry.name] = pa.nulls(len(drawn), entry.type)
    return pa.table({name: columns[name] for name in schema.names if name not in KEYS}, schema=schema)
