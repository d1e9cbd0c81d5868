"""Cells that somebody has given a class: in QuPath (GeoJSON), or in a master file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from wsipipe.errors import StoreError
from wsipipe.formats.imported import SUFFIXES, read_drawn
from wsipipe.formats.parquet import metadata, row_groups
from wsipipe.geometry import qupath_origin

SKIPPED = ("tissue", "unreadable", "region")
"""Classes of annotations that say nothing of cells; as do those that end in * (QuPath ignores them too)."""


@dataclass(eq=False)
class Labels:
    """Classes by identity, by point and by area, in base pixels; the first that has an answer for a cell counts."""

    by_id: dict[str, str] = field(default_factory=dict)
    points: list[tuple[shapely.Geometry, str]] = field(default_factory=list)
    areas: list[tuple[shapely.Geometry, str]] = field(default_factory=list)
    colours: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def of(self, table: pa.Table) -> list[str]:
        """Return the class of each row of *table*, "" where it is not labelled or labelled in two ways."""
        ids = table["cell_id"].to_pylist()
        found = [self.by_id.get(id_, "") for id_ in ids]
        rest = np.flatnonzero([not kind for kind in found])
        if not len(rest) or not (self.points or self.areas):
            return found
        outlines = shapely.from_wkb(table["geometry"].to_numpy())[rest]
        centres = shapely.points(table["x"].to_numpy()[rest], table["y"].to_numpy()[rest])
        inside = _hits(outlines, self.points, "within"), _hits(centres, self.areas, "contains")
        for i, row in enumerate(rest.tolist()):
            kinds = next((hits[i] for hits in inside if i in hits), {""})
            found[row] = min(kinds) if len(kinds) == 1 else ""
        return found


def _hits(
    cells: NDArray[np.object_], drawn: Sequence[tuple[shapely.Geometry, str]], predicate: Literal["within", "contains"]
) -> dict[int, set[str]]:
    """Return the classes of what is *drawn* on each cell, by the cell's number."""
    found: dict[int, set[str]] = {}
    if drawn:
        shapes = np.array([shape for shape, _ in drawn], np.object_)
        for shape, cell in shapely.STRtree(cells).query(shapes, predicate=predicate).T.tolist():
            found.setdefault(cell, set()).add(drawn[shape][1])
    return found


def read_labels(path: Path, cells: Path) -> Labels:
    """Return what the file *path* says of the cells in the master file *cells*.

    In GeoJSON, detections and cells with a class are known by their identity; annotations with a class label the cells
    whose centre they hold, and points the cells that they lie in. Of a master file, rows with a class.

    Raises
    ------
    StoreError
    """
    if not path.name.endswith(SUFFIXES):
        return _of_master(path)
    about, labels = metadata(cells), Labels()
    for drawn in read_drawn(path, qupath_origin(about["size"], about["bounds"])):
        kind = drawn.kind.strip()
        if not kind or kind.endswith("*") or (drawn.annotation and kind.lower() in SKIPPED):
            continue
        if drawn.colour:
            labels.colours[kind] = drawn.colour
        if isinstance(drawn.shape, (shapely.Point, shapely.MultiPoint)):
            labels.points += [(point, kind) for point in shapely.get_parts(drawn.shape)]
        elif drawn.annotation:
            labels.areas.append((drawn.shape, kind))
        else:
            labels.by_id[drawn.id] = kind
    if not (labels.by_id or labels.points or labels.areas):
        raise StoreError(f"{path}: no object has a class; in QuPath, set the class of some cells and export them")
    return labels


def _of_master(path: Path) -> Labels:
    labels, colours = Labels(), metadata(path).get("classes") or {}
    for table in row_groups(path):
        pairs = zip(table["cell_id"].to_pylist(), table["class"].to_pylist(), strict=True)
        labels.by_id |= {id_: kind for id_, kind in pairs if kind}
    labels.colours = {name: (rgb[0], rgb[1], rgb[2]) for name, rgb in colours.items() if rgb}
    return labels
