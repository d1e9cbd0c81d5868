"""The slide as one big picture at the working resolution.

A pixel of the raster has one value, whatever box is asked for, in whatever order, thread or process: pixels are made in
chunks of 512 px of the global grid, and the arithmetic of a pixel depends on its global coordinates alone.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.errors import TileReadError
from wsipipe.geometry import Grid, intersect, is_empty, working_grid
from wsipipe.settings import SlideSettings
from wsipipe.slide import fingerprint, open_slide, require_mpp
from wsipipe.slide.protocol import Slide, SlideInfo
from wsipipe.units import Box, Pair

CHUNK = 512
"""Side of the squares in which pixels are made, in grid pixels."""
SMALLEST_RETRY = 64
"""A chunk that cannot be read is retried in quarters down to this many grid pixels."""

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


class SlideRaster(ChunkRaster):
    """The raster of an open slide, resampled from the level that its grid names.

    Parameters
    ----------
    slide : Slide
        Read by one thread at a time, under a lock; for parallel decoding give each thread its own (pickled) raster.
    grid : Grid
    fingerprint : str, optional
        Of the slide file; by default taken from the file.
    cached_chunks : int
        Chunks kept in memory.
    """

    def __init__(self, slide: Slide, grid: Grid, fingerprint: str | None = None, cached_chunks: int = 64) -> None:
        super().__init__(grid, slide.info, _fingerprint(slide) if fingerprint is None else fingerprint, cached_chunks)
        self._source = slide
        self._reading = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_reading": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._reading = threading.Lock()

    def close(self) -> None:
        """Close the slide."""
        self._source.close()

    def load(self, column: int, row: int) -> Pixels:
        """Return one chunk; parts that cannot be read have the background colour and are noted in :attr:`bad`."""
        x0, y0 = column * CHUNK, row * CHUNK
        x0, y0, x1, y1 = intersect((x0, y0, x0 + CHUNK, y0 + CHUNK), (0, 0, *self.grid.size))
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        self._fill(out, (x0, y0), CHUNK)
        return out

    def _fill(self, out: Pixels, origin: tuple[int, int], side: int) -> None:
        """Write the pixels whose top-left corner is *origin* into *out*, in ever smaller parts where reading fails."""
        (x, y), (height, width) = origin, out.shape[:2]
        try:
            out[:] = self._resampled((x, y, x + width, y + height))
        except TileReadError:
            if side <= SMALLEST_RETRY:
                out[:] = self.slide.background
                self._bad.add((x, y, x + width, y + height))
                return
            half = side // 2
            for dy in range(0, height, half):
                for dx in range(0, width, half):
                    self._fill(out[dy : dy + half, dx : dx + half], (x + dx, y + dy), half)

    def _resampled(self, box: Box) -> Pixels:
        """Return the pixels of *box* (grid pixels inside the slide)."""
        grid = self.grid
        level_size = self.slide.levels[grid.level].size
        if grid.level_scale == (1.0, 1.0) and grid.size == level_size:
            return self._level_pixels(box)
        return resample(self._level_pixels, box, grid.level_scale, grid.size, level_size)

    def _level_pixels(self, box: Box) -> Pixels:
        x0, y0, x1, y1 = box
        with self._reading:
            return self._source.read_region(self.grid.level, x0, y0, x1 - x0, y1 - y0)


def _fingerprint(slide: Slide) -> str:
    """Return the fingerprint of the file behind *slide*, or of the pixels of one in memory."""
    if slide.info.backend != "memory":
        return fingerprint(slide.info.path)
    width, height = slide.info.size
    digest = hashlib.sha256(f"{width} {height}".encode())
    for top in range(0, height, CHUNK):
        try:
            digest.update(slide.read_region(0, 0, top, width, min(CHUNK, height - top)).tobytes())
        except TileReadError:
            digest.update(b"unreadable")
    return digest.hexdigest()


def open_slide_raster(
    path: str | Path, settings: SlideSettings, target_mpp: float | None, allow_upsample: bool = False
) -> SlideRaster:
    """Return the raster of the slide at *path* at *target_mpp* um/px (None: the slide's own resolution).

    Raises
    ------
    SlideError
        When the slide does not open, or has no plausible resolution.
    SettingsError
        When the slide is too coarse for *target_mpp*.
    """
    slide = open_slide(path, settings)
    base_mpp = require_mpp(slide.info, settings)
    return SlideRaster(slide, slide_grid(slide.info, base_mpp, target_mpp, allow_upsample))


def slide_grid(info: SlideInfo, base_mpp: Pair, target_mpp: float | None, allow_upsample: bool = False) -> Grid:
    """Return the working grid of a slide at *target_mpp* um/px (None: the slide's own resolution)."""
    sizes, downsamples = zip(*((level.size, level.downsample) for level in info.levels), strict=True)
    if target_mpp is None:
        return Grid(info.size, (1.0, 1.0), base_mpp, 0, (1.0, 1.0))
    return working_grid(sizes, downsamples, base_mpp, target_mpp, allow_upsample=allow_upsample)


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


def whole_factor(scale: float, side: int) -> int:
    """Return *scale* as an integer when it drifts from it by under 0.01 level px over *side* grid px, else 0."""
    factor = round(scale)
    return factor if factor >= 1 and abs(scale - factor) * side < 0.01 else 0


def resample(
    read: Callable[[Box], Pixels], box: Box, scale: Pair, size: tuple[int, int], level_size: tuple[int, int]
) -> Pixels:
    """Return the grid pixels of *box*, uint8 (h, w, 3), from level pixels that *read* gives for a level box.

    Along an axis with *scale* >= 1 a pixel is the mean over the area it covers; along one with *scale* < 1 it is
    interpolated linearly. Both are registered: grid pixel i covers level pixels ``[i * scale, (i + 1) * scale)``, and
    what sticks out of the level is left out of the mean. A whole *scale* gives the exact mean, rounded half up.
    """
    (x0, y0, x1, y1), (sx, sy) = box, (whole_factor(s, side) or s for s, side in zip(scale, size, strict=True))
    left, weight_x = _taps(x0, x1, sx, level_size[0])
    top, weight_y = _taps(y0, y1, sy, level_size[1])
    origin = int(left.min()), int(top.min())
    pixels = read((*origin, _end(left, weight_x), _end(top, weight_y)))
    return _weighted_mean(np.ascontiguousarray(pixels), left - origin[0], weight_x, top - origin[1], weight_y)


def _taps(start: int, stop: int, scale: float, level_side: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the first level pixel that each grid pixel uses, int64 (n,), and its weights, float32 (n, taps)."""
    index = np.arange(start, stop, dtype=np.float64)
    if scale < 1:
        position = np.clip((index + 0.5) * scale - 0.5, 0, level_side - 1)
        first = np.minimum(position.astype(np.int64), max(0, level_side - 2))
        share = position - first
        return first, np.stack([1 - share, share], axis=1).astype(np.float32)[:, : min(2, level_side)]
    low, high = index * scale, np.minimum((index + 1) * scale, level_side)
    first = np.minimum(np.floor(low), level_side - 1).astype(np.int64)
    edges = first[:, None] + np.arange(int(np.ceil(scale)) + 1)
    cover = np.clip(np.minimum(edges + 1, high[:, None]) - np.maximum(edges, low[:, None]), 0, None)
    cover[cover < 1e-6] = 0
    cover[cover.sum(1) == 0, 0] = 1  # a last pixel that lies wholly outside, by rounding, repeats the edge
    return first, cover.astype(np.float32)


def _end(first: NDArray[np.int64], weights: NDArray[np.float32]) -> int:
    """Return the end of the level pixels that have a weight above 0."""
    last = weights.shape[1] - np.argmax(weights[:, ::-1] > 0, axis=1)
    return int((first + last).max())


@njit(cache=True, nogil=True)
def _weighted_mean(
    pixels: Pixels,
    left: NDArray[np.int64],
    weight_x: NDArray[np.float32],
    top: NDArray[np.int64],
    weight_y: NDArray[np.float32],
) -> Pixels:
    """Return the separable weighted mean of *pixels* (h, w, 3): first down the rows, then along them, in float32."""
    width = pixels.shape[1] * 3
    flat = pixels.reshape(pixels.shape[0], width)
    out = np.empty((top.size, left.size, 3), np.uint8)
    line = np.empty(width, np.float32)
    zero, half = np.float32(0), np.float32(0.5)
    for y in range(top.size):
        line[:] = zero
        total_y = zero
        for k in range(weight_y.shape[1]):
            weight = weight_y[y, k]
            if weight > 0:
                row = flat[top[y] + k]
                total_y += weight
                for u in range(width):
                    line[u] += weight * np.float32(row[u])
        for x in range(left.size):
            red, green, blue, total = zero, zero, zero, zero
            for k in range(weight_x.shape[1]):
                weight = weight_x[x, k]
                if weight > 0:
                    u = (left[x] + k) * 3
                    total += weight
                    red += weight * line[u]
                    green += weight * line[u + 1]
                    blue += weight * line[u + 2]
            total *= total_y
            out[y, x, 0] = np.uint8(min(red / total + half, np.float32(255)))
            out[y, x, 1] = np.uint8(min(green / total + half, np.float32(255)))
            out[y, x, 2] = np.uint8(min(blue / total + half, np.float32(255)))
    return out
