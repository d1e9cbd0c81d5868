"""Parts of a master file by place: which rows lie in a box, with their numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsipipe.raster.fill import fill_edges

Bounds = tuple[float, float, float, float]
GRID = 1024
"""Steps per pixel in which outlines are painted."""
SIDES = ("xmin", "ymin", "xmax", "ymax")


class Windows:
    """A master file whose cells are asked for box by box, in bounded memory.

    Row groups hold the cells of one square of the slide, so a box needs few of them.

    Parameters
    ----------
    master : path
    """

    def __init__(self, master: str | os.PathLike[str]) -> None:
        self._file = pq.ParquetFile(master)
        about = self._file.metadata
        groups = [about.row_group(i) for i in range(about.num_row_groups)]
        self._first = np.cumsum([0, *(group.num_rows for group in groups)])
        self._bounds = np.array([_bounds(group) for group in groups]).reshape(-1, 4)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def over(self, box_base: Bounds, columns: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """Yield row numbers (from 0) and *columns* of the cells whose bounding box meets *box_base*, in order."""
        for i in np.flatnonzero(_meet(self._bounds, box_base)).tolist():
            table = self._file.read_row_group(i, [*columns, "bbox"])
            boxes = table["bbox"].combine_chunks()
            sides = np.column_stack([boxes.field(side).to_numpy() for side in SIDES]).astype(np.float64)
            rows = np.flatnonzero(_meet(sides, box_base))
            if len(rows):
                yield self._first[i] + rows, table.select(list(columns)).take(rows)


def paint(
    labels: NDArray[np.int32],
    polygons: NDArray[np.object_],
    values: NDArray[np.int32],
    origin: tuple[int, int],
    scale: tuple[float, float],
) -> None:
    """Paint *polygons* (base pixels) with their *values* into *labels* (h, w); later ones lie on top.

    A pixel belongs to a polygon that holds its centre. *origin* is the grid pixel at ``labels[0, 0]``, *scale* base
    pixels per grid pixel in x and y.
    """
    rings, owner = shapely.get_rings(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    xy = np.rint((xy / scale - origin) * GRID) / GRID  # so that no pixel depends on where the window lies:
    xy[:, 0] += 0.25 / GRID  # outlines do not run through pixel centres
    inner = ring[1:] == ring[:-1]  # rings are closed: an edge joins each vertex with the next
    edges = np.column_stack([xy[:-1], xy[1:]])[inner]
    counts = np.bincount(owner[ring[1:][inner]], minlength=len(polygons))
    fill_edges(labels, np.ascontiguousarray(edges), np.cumsum([0, *counts.tolist()]), values)


def _meet(boxes: NDArray[np.float64], box: Bounds) -> NDArray[np.bool_]:
    """Return which *boxes* (n, 4) meet *box*."""
    x0, y0, x1, y1 = box
    meets = (boxes[:, 0] <= x1) & (boxes[:, 2] >= x0) & (boxes[:, 1] <= y1) & (boxes[:, 3] >= y0)
    return np.asarray(meets, dtype=bool)


def _bounds(group: pq.RowGroupMetaData) -> list[float]:
    """Return the box around the cells of a row group, from its statistics."""
    found = {}
    for i in range(group.num_columns):
        column = group.column(i)
        table, _, side = column.path_in_schema.partition(".")
        if table == "bbox" and column.statistics is not None:
            found[side] = column.statistics.min if side in ("xmin", "ymin") else column.statistics.max
    everywhere = {"xmin": -np.inf, "ymin": -np.inf, "xmax": np.inf, "ymax": np.inf}
    return [float((everywhere | found)[side]) for side in SIDES]
