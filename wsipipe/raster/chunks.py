"""What every raster shares: chunks, a small cache of them, boxes put together from them, reflection at the edges."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsipipe.geometry import Grid, intersect, is_empty
from wsipipe.slide.protocol import SlideInfo
from wsipipe.units import Box

CHUNK = 512
"""Side of the squares in which pixels are made, in grid pixels."""

Pixels = NDArray[np.uint8]


class Raster(Protocol):
    """RGB pixels of a slide on its working grid."""

    @property
    def grid(self) -> Grid:
        """The working grid that pixels are on."""

    @property
    def slide(self) -> SlideInfo:
        """The slide that pixels come from."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the slide file."""

    @property
    def bad(self) -> tuple[Box, ...]:
        """Boxes in grid pixels found unreadable so far, sorted; they hold the background colour."""

    def read(self, box: Box) -> Pixels:
        """Return the pixels of *box* (grid pixels), uint8 (h, w, 3); outside the slide they are its reflection."""


class ChunkRaster:
    """What every raster shares: a small cache of chunks, boxes put together from them, reflection at the edges.

    Subclasses give :meth:`load`. One object may be shared by threads; a pickled copy starts with an empty cache.

    Parameters
    ----------
    grid : Grid
    slide : SlideInfo
    fingerprint : str
    cached_chunks : int
        Chunks kept in memory, 0.75 MiB each.
    """

    def __init__(self, grid: Grid, slide: SlideInfo, fingerprint: str, cached_chunks: int = 64) -> None:
        self.grid, self.slide, self.fingerprint = grid, slide, fingerprint
        self._capacity = max(1, cached_chunks)
        self._chunks: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._bad: set[Box] = set()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chunks": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def load(self, column: int, row: int) -> Pixels:
        """Return the pixels of one chunk, clipped to the grid."""
        raise NotImplementedError

    def chunk(self, column: int, row: int) -> Pixels:
        """Return the pixels of one chunk, clipped to the grid, from the cache where it has it; not to be written to."""
        key = column, row
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                return self._chunks[key]
        pixels = self.load(column, row)
        with self._lock:
            self._chunks[key] = pixels
            while len(self._chunks) > self._capacity:
                self._chunks.popitem(last=False)
        return pixels

    def read(self, box: Box) -> Pixels:
        """Return the pixels of *box* (grid pixels), uint8 (h, w, 3); outside the slide they are its reflection."""
        (x0, y0, x1, y1), (width, height) = box, self.grid.size
        if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
            return self._inside(box)
        if is_empty(box):
            return np.empty((max(0, y1 - y0), max(0, x1 - x0), 3), np.uint8)
        columns, rows = reflected(x0, x1, width), reflected(y0, y1, height)
        left, top = int(columns.min()), int(rows.min())
        pixels = self._inside((left, top, int(columns.max()) + 1, int(rows.max()) + 1))
        return np.ascontiguousarray(pixels[(rows - top)[:, None], columns - left])

    def _inside(self, box: Box) -> Pixels:
        """Return the pixels of a *box* that lies inside the slide."""
        x0, y0, x1, y1 = box
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for column, row in chunks_over(box):
            left, top = column * CHUNK, row * CHUNK
            a0, b0, a1, b1 = intersect(box, (left, top, left + CHUNK, top + CHUNK))
            part = self.chunk(column, row)[b0 - top : b1 - top, a0 - left : a1 - left]
            out[b0 - y0 : b1 - y0, a0 - x0 : a1 - x0] = part
        return out

    @property
    def bad(self) -> tuple[Box, ...]:
        """Boxes in grid pixels found unreadable so far, sorted; they hold the background colour."""
        return tuple(sorted(self._bad))


def chunks_over(box: Box) -> Iterator[tuple[int, int]]:
    """Yield (column, row) of the chunks that overlap *box*, row-major."""
    x0, y0, x1, y1 = box
    for row in range(y0 // CHUNK, -(-y1 // CHUNK)):
        for column in range(x0 // CHUNK, -(-x1 // CHUNK)):
            yield column, row


def reflected(start: int, stop: int, side: int) -> NDArray[np.int64]:
    """Return the index inside ``[0, side)`` that each of ``start .. stop - 1`` mirrors, like ``numpy.pad`` reflect."""
    if side == 1:
        return np.zeros(stop - start, np.int64)
    period = 2 * (side - 1)
    index = np.arange(start, stop, dtype=np.int64) % period
    return np.where(index < side, index, period - index)
