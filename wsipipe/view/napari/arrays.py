"""What looks like an array and is read where it is looked at: levels of a slide, and labels of its cells."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsipipe.raster.fill import fill
from wsipipe.slide import Slide
from wsipipe.view.index import CellIndex, ranges

COARSEST = 1024
"""Pixels on the longer side of the coarsest level of labels, at most."""
DOTS = 8.0
"""Base pixels per pixel above which a cell is smaller than a pixel or two: it is drawn as one."""


class Level(Protocol):
    """A picture that can be read in part."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, and channels if it has any."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Kind of its pixels."""

    def window(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[Any]:
        """Return the pixels of a box that lies inside."""


class Windows:
    """A level as an array that reads what it is sliced to; napari, dask and numpy take it for one."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self.shape, self.dtype = level.shape, level.dtype
        self.ndim, self.size = len(level.shape), math.prod(level.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        keys += [slice(None)] * (self.ndim - len(keys))
        spans = [_span(k, n) for k, n in zip(keys[:2], self.shape[:2], strict=True)]
        (y0, y1), (x0, x1) = spans
        if y1 <= y0 or x1 <= x0:
            pixels = np.zeros((max(0, y1 - y0), max(0, x1 - x0), *self.shape[2:]), self.dtype)
        else:
            pixels = self._level.window(x0, y0, x1, y1)
        rest = tuple(slice(None, None, k.step) if isinstance(k, slice) else 0 for k in keys[:2])
        return np.asarray(pixels[(*rest, *keys[2:])])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


def _span(key: Any, size: int) -> tuple[int, int]:
    """Return the first and the last but one index that *key* means, of an axis of *size*."""
    if isinstance(key, slice):
        start, stop, step = key.indices(size)
        if step < 0:
            raise IndexError("slides are read forwards: the step of a slice is at least 1")
        return start, stop
    index = int(key) + (size if key < 0 else 0)
    if not 0 <= index < size:
        raise IndexError(f"{key} lies outside an axis of {size}")
    return index, index + 1


class SlideLevel:
    """A level of a slide, (height, width, 3). Safe to share between threads, which take turns."""

    _turn = threading.Lock()

    def __init__(self, slide: Slide, level: int) -> None:
        self._slide, self._number = slide, level
        width, height = slide.info.levels[level].size
        self.shape, self.dtype = (height, width, 3), np.dtype(np.uint8)

    def window(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
        """Return RGB pixels of a box."""
        with self._turn:
            return self._slide.read_region(self._number, x0, y0, x1 - x0, y1 - y0)


class NumberedCells(CellIndex):
    """Cells by window, each known by its row in the file."""

    def numbered(self, box: tuple[float, float, float, float]) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
        """Return row and outline (base pixels) of each cell that meets *box*, in the order of the file."""
        rows: list[NDArray[np.int64]] = []
        outlines: list[NDArray[np.float32]] = []
        x0, y0, x1, y1 = box
        for i in self._groups(box):
            group = self._group(i)
            left, top, right, bottom = group.boxes.T
            met = np.flatnonzero((left <= x1) & (right >= x0) & (top <= y1) & (bottom >= y0))
            rows.append(int(self._offsets[i]) + met)
            lengths = np.diff(group.starts)[met]
            points = group.xy[ranges(group.starts[met], lengths)]
            outlines += np.split(points, np.cumsum(lengths)[:-1]) if len(met) else []
        return (np.concatenate(rows) if rows else np.zeros(0, np.int64)), outlines

    def centres(self, box: tuple[float, float, float, float]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return row and centre (base pixels) of each cell whose centre lies in *box*."""
        x, y = self._xy.T
        x0, y0, x1, y1 = box
        rows = np.flatnonzero((x >= x0) & (x < x1) & (y >= y0) & (y < y1))
        return rows, self._xy[rows]


class LabelLevel:
    """Cells as labels (height, width), the number of a cell being its row in the file + 1, at a coarseness."""

    def __init__(self, cells: NumberedCells, size: Sequence[int], scale: float) -> None:
        self._cells, self._scale = cells, scale
        self.shape = math.ceil(size[1] / scale), math.ceil(size[0] / scale)
        self.dtype = np.dtype(np.int32)

    @classmethod
    def pyramid(cls, master: str, size: Sequence[int]) -> list[LabelLevel]:
        """Return the labels of a master file from a slide's base pixels on, each level half of the one before."""
        cells, count = NumberedCells(master), max(1, math.ceil(math.log2(max(size) / COARSEST)) + 1)
        return [cls(cells, size, 2.0**level) for level in range(count)]

    def window(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.int32]:
        """Return the labels of a box."""
        out = np.zeros((y1 - y0, x1 - x0), np.int32)
        box = x0 * self._scale, y0 * self._scale, x1 * self._scale, y1 * self._scale
        if self._scale > DOTS:
            rows, xy = self._cells.centres(box)
            column, row = (xy / self._scale).astype(np.intp).T
            inside = (column >= x0) & (column < x1) & (row >= y0) & (row < y1)
            out[row[inside] - y0, column[inside] - x0] = rows[inside] + 1
            return out
        rows, outlines = self._cells.numbered(box)
        rings = [[outline.astype(np.float64) / self._scale - (x0, y0)] for outline in outlines]
        fill(out, rings, (rows + 1).tolist())
        return out
