"""Where the cells are: centroids in memory, outlines read by row group when they come into sight."""

from __future__ import annotations

import functools
import math
import os
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsipipe.errors import SettingsError
from wsipipe.formats.colours import NO_CLASS, class_colours
from wsipipe.formats.columns import flag_names
from wsipipe.formats.conditions import columns_with_conditions, numbers_of, read_conditions
from wsipipe.formats.parquet import metadata
from wsipipe.formats.table import class_codes
from wsipipe.units import Pair
from wsipipe.view.wanted import ALL, HIDDEN, AddedCells, Codes, Dots, FBox, Outlines, Wanted

CACHE_BYTES = 256 << 20
"""Memory for row groups that have been in sight."""
CELL_BYTES = 700
"""Of a cell in memory: outline, box, measurements and identity."""
MARGIN = 256.0
"""Base pixels by which a row group's cells may stick out of the box of their centroids."""
COLUMNS, MASKS = 8, 4
"""Measurements, and answers to conditions, that are kept in memory for all cells."""
BARS = 48
"""Of a histogram."""


@dataclass(frozen=True, eq=False)
class Group:
    """The cells of a row group: table without geometry, boxes (n, 4), vertices, and where each cell's begin (n + 1)."""

    table: pa.Table
    boxes: NDArray[np.float32]
    xy: NDArray[np.float32]
    starts: NDArray[np.int64]


class CellIndex:
    """Answers which cells lie in a window, from a master file.

    Holds nine bytes a cell (centroid and class), four more for the measurement that cells are coloured by, and up to
    256 MiB of outlines and measurements of the row groups seen last. Safe to share between threads.

    Parameters
    ----------
    master : path

    Raises
    ------
    StoreError
        When *master* is not a master file of wsipipe.
    """

    def __init__(self, master: str | os.PathLike[str]) -> None:
        self.about = metadata(master)
        self._path, self._lock = os.fspath(master), threading.Lock()
        self._footer = pq.read_metadata(master)
        schema = self._footer.schema.to_arrow_schema()
        self._schema, self.added = schema, AddedCells()
        self.measures = tuple(f.name for f in schema if pa.types.is_float32(f.type))
        self.filters, self.flags = columns_with_conditions(schema), tuple(flag_names(schema))
        self.colours = class_colours(self.about.get("classes") or {})
        self.names, self._none = [*self.colours, "no class"], len(self.colours)
        self.revision = 0  # of corrections
        self._read_centroids()
        rows = self._footer.num_rows / max(1, self._footer.num_row_groups)
        self._group = functools.lru_cache(int(np.clip(CACHE_BYTES / max(1, rows * CELL_BYTES), 4, 256)))(self._load)

    @property
    def cells(self) -> int:
        """Number of cells, those that were deleted left out and those that were drawn counted."""
        return int(self._counts().sum())

    @functools.cached_property
    def diameter_px(self) -> float:
        """Mean diameter of a cell in base pixels, from the boxes in the first, middle and last row group."""
        last = self._footer.num_row_groups - 1
        boxes = [self._group(i).boxes for i in sorted({0, last // 2, last})] if self.cells else []
        if not boxes:
            return 16.0
        box = np.concatenate(boxes)
        return float(np.sqrt((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).mean())

    def classes(self) -> list[dict[str, Any]]:
        """Return name, colour and number of cells of each class; the last is of cells without one, if there are any."""
        counts = self._counts().tolist()
        found = [
            {"name": name, "colour": self.colours.get(name, NO_CLASS), "cells": count}
            for name, count in zip(self.names, counts, strict=True)
        ]
        last = len(found) == self._none + 1 > 1
        return found[:-1] if last and not counts[-1] else found

    def _counts(self) -> NDArray[np.int64]:
        """Return the number of cells of each of :attr:`names`."""
        count = len(self.names)
        counts = np.bincount(self._class, minlength=count)[:count] + np.bincount(self.added.codes(), minlength=count)
        return np.asarray(counts, np.int64)

    @functools.lru_cache(maxsize=64)  # noqa: B019 an index lives as long as its server
    def spread(self, measure: str) -> Pair:
        """Return the 2nd and 98th percentile of a measurement, between which cells are coloured."""
        values = self._column(measure)
        values = values[np.isfinite(values)]
        if not len(values):
            return 0.0, 1.0
        low, high = np.quantile(values, (0.02, 0.98)).tolist()
        return low, high if high > low else low + 1.0

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def histogram(self, name: str) -> dict[str, Any]:
        """Return ``low`` and ``high`` of a column, the ``bars`` between, and how many cells have no number in it.

        Ends are those of all but a thousandth of the cells on either side, whose cells are counted in the last bar.
        """
        column = self._column(name)
        values = column[np.isfinite(column)].astype(np.float64)
        if not len(values):
            return {"low": 0.0, "high": 1.0, "bars": [], "without": len(column)}
        low, high = np.quantile(values, (0.001, 0.999)).tolist()
        high = high if high > low else low + 1.0
        bars, _ = np.histogram(values.clip(low, high), BARS, (low, high))
        return {"low": low, "high": high, "bars": bars.tolist(), "without": len(column) - len(values)}

    def count(self, wanted: Wanted = ALL) -> int:
        """Return how many cells are wanted.

        Raises
        ------
        SettingsError
            When the conditions are none.
        """
        return int(np.count_nonzero(self._kept(slice(None), wanted))) + len(self.added.codes(wanted))

    def understands(self, where: str) -> bool:
        """Whether *where* are conditions on these cells."""
        try:
            read_conditions(where, self._schema)
        except SettingsError:
            return False
        return True

    def outlines(self, box: FBox, wanted: Wanted = ALL, measure: str = "") -> Outlines:
        """Return the outlines that meet *box* (base pixels), in the order of the file."""
        drawn = self.added.outlines(box, wanted, measure)
        codes, lengths, vertices = [drawn.codes], [drawn.lengths], [drawn.xy]
        for i in self._groups(box):
            group = self._group(i)
            rows = np.flatnonzero(_meet(group.boxes, box) & self._shown(i, wanted))
            codes.append(self._codes(self._offsets[i] + rows, measure))
            lengths.append(np.diff(group.starts)[rows])
            vertices.append(group.xy[ranges(group.starts[rows], lengths[-1])])
        return Outlines(np.concatenate(codes), np.concatenate(lengths), np.concatenate(vertices))

    def dots(self, box: FBox, wanted: Wanted = ALL, measure: str = "") -> Dots:
        """Return the centroids in *box* (base pixels, half-open)."""
        rows = []
        left, top, right, bottom = np.array(box)
        for i in self._groups(box, 0.0):
            begin, end = self._offsets[i], self._offsets[i + 1]
            x, y = self._xy[begin:end].T
            inside = (x >= left) & (x < right) & (y >= top) & (y < bottom) & self._shown(i, wanted)
            rows.append(begin + np.flatnonzero(inside))
        found = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        drawn = self.added.dots(box, wanted, measure)
        return Dots(
            np.concatenate([self._codes(found, measure), drawn.codes]), np.concatenate([self._xy[found], drawn.xy])
        )

    def at(self, x: float, y: float, wanted: Wanted = ALL) -> dict[str, Any] | None:
        """Return the smallest cell over a point (base pixels): all its columns and its outline; None where none is."""
        drawn = self.added.at(x, y, wanted)
        best: tuple[float, int, int] | None = None
        for i in self._groups((x, y, x, y)):
            group = self._group(i)
            for row in np.flatnonzero(_meet(group.boxes, (x, y, x, y)) & self._shown(i, wanted)).tolist():
                polygon = shapely.Polygon(group.xy[group.starts[row] : group.starts[row + 1]])
                if shapely.intersects_xy(polygon, x, y) and (best is None or polygon.area < best[0]):
                    best = polygon.area, i, row
        if drawn is not None and (best is None or drawn[0] < best[0]):
            return drawn[1] | {"class": self._named(drawn[2])}
        return None if best is None else self._tell(best[1], best[2])

    def counts(self, bin_px: float, wanted: Wanted = ALL) -> NDArray[np.float32]:
        """Return the number of cells in each square of *bin_px* base pixels of the slide, (rows, columns)."""
        width, height = self.about["size"]
        shape = math.ceil(height / bin_px), math.ceil(width / bin_px)
        shown = self._kept(slice(None), wanted)
        xy = np.concatenate([self._xy[shown], self.added.centres(wanted).astype(np.float32)])
        column, row = (xy / bin_px).astype(np.intp).T
        flat = row.clip(0, shape[0] - 1) * shape[1] + column.clip(0, shape[1] - 1)
        return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float32)

    def _read_centroids(self) -> None:
        """Read centroid and class of every cell, and the extent of each row group."""
        groups = self._footer.num_row_groups
        self._xy = np.empty((self._footer.num_rows, 2), np.float32)
        self._class = np.empty(self._footer.num_rows, np.uint8)
        self._offsets = np.zeros(groups + 1, np.int64)
        self._extents = np.empty((groups, 4), np.float32)
        with self._open() as file:
            for i in range(groups):
                table = file.read_row_group(i, ["x", "y", "class"])
                begin = self._offsets[i]
                end = self._offsets[i + 1] = begin + table.num_rows
                self._xy[begin:end] = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()])
                codes = class_codes(table["class"].combine_chunks(), tuple(self.colours))
                self._class[begin:end] = np.minimum(codes, HIDDEN - 1)
                part = self._xy[begin:end]
                self._extents[i] = (*part.min(axis=0), *part.max(axis=0))

    def _groups(self, box: FBox, margin: float = MARGIN) -> list[int]:
        """Return the row groups whose cells may meet *box*."""
        x0, y0, x1, y1 = box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin
        return np.flatnonzero(_meet(self._extents, (x0, y0, x1, y1))).tolist()

    def _shown(self, group: int, wanted: Wanted) -> Any:
        """Return which cells of a row group are wanted."""
        return self._kept(slice(self._offsets[group], self._offsets[group + 1]), wanted)

    def _kept(self, rows: slice, wanted: Wanted) -> NDArray[np.bool_]:
        """Return which cells of *rows* are wanted."""
        kept: NDArray[np.bool_] = wanted.classes()[self._class[rows]]
        return kept & self._met(wanted.where)[rows] if wanted.where else kept

    @functools.lru_cache(maxsize=MASKS)  # noqa: B019
    def _met(self, where: str) -> NDArray[np.bool_]:
        """Return which cells meet the conditions *where*."""
        met = np.ones(self._footer.num_rows, np.bool_)
        for condition in read_conditions(where, self._schema, "where"):
            met &= condition.holds(self._column(condition.column))
        return met

    def _codes(self, rows: NDArray[np.int64], measure: str) -> Codes:
        """Return the class of each cell, or its place in the spread of *measure* from 0 to 254 (255: no number)."""
        codes: Codes = self._class[rows]
        if not measure:
            return codes
        low, high = self.spread(measure)
        share = (self._column(measure)[rows] - low) / (high - low)
        codes = np.rint(np.clip(np.nan_to_num(share), 0, 1) * 254).astype(np.uint8)
        codes[~np.isfinite(share)] = HIDDEN
        return codes

    @functools.lru_cache(maxsize=COLUMNS)  # noqa: B019
    def _column(self, name: str) -> NDArray[Any]:
        """Return a measurement of every cell, or 1 and 0 for yes and no."""
        with self._open() as file:
            return numbers_of(file.read([name])[name])

    def _load(self, i: int) -> Group:
        with self._lock, self._open() as file:
            table = file.read_row_group(i)
        xy, owner = shapely.get_coordinates(shapely.from_wkb(table["geometry"].to_numpy()), return_index=True)
        starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=table.num_rows))])
        box = table["bbox"].combine_chunks()
        boxes = np.column_stack([box.field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")])
        kept = [name for name in table.schema.names if name not in ("geometry", "nucleus", "bbox")]
        return Group(table.select(kept).combine_chunks(), boxes, xy.astype(np.float32), starts)

    def _tell(self, i: int, row: int) -> dict[str, Any]:
        """Return what is known of a cell."""
        group = self._group(i)
        found: dict[str, Any] = group.table.slice(row, 1).to_pylist()[0]
        ring = group.xy[group.starts[row] : group.starts[row + 1]]
        own = {"class": self._named(int(self._class[self._offsets[i] + row]))}
        return found | own | {"outline": np.round(ring.astype(np.float64), 2).tolist()}

    def _named(self, code: int) -> str | None:
        return None if code == self._none else self.names[code]

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(self._path, metadata=self._footer)


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``start, start + 1, ...`` of each of several runs, one after the other."""
    if not len(starts):
        return np.zeros(0, np.int64)
    ends = np.cumsum(lengths)
    places: NDArray[np.int64] = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
    return places


def _meet(boxes: NDArray[np.float32], box: FBox) -> NDArray[np.bool_]:
    """Return which *boxes* (n, 4) meet *box*."""
    (x0, y0, x1, y1), (left, top, right, bottom) = boxes.T, np.array(box)
    met: NDArray[np.bool_] = (x0 <= right) & (x1 >= left) & (y0 <= bottom) & (y1 >= top)
    return met
