"""The raster of an open slide."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np

from wsipipe.errors import TileReadError
from wsipipe.geometry import Grid, intersect, working_grid
from wsipipe.raster.chunks import CHUNK, ChunkRaster, Pixels
from wsipipe.raster.resample import resample
from wsipipe.settings import SlideSettings
from wsipipe.slide import Stamp, check_same, fingerprint, open_slide, require_mpp
from wsipipe.slide.protocol import Slide, SlideInfo
from wsipipe.units import Box, Pair

SMALLEST_RETRY = 64
"""A chunk that cannot be read is retried in quarters down to this many grid pixels."""


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

    def check_same(self) -> None:
        """Raise :class:`~wsipipe.errors.SlideChanged` when the file is not any more the one that was opened."""
        if self.stamp is not None:
            check_same(self.slide.path, self.fingerprint, self.stamp)

    @property
    def stamp(self) -> Stamp | None:
        """Size and time of the file when it was opened, None for a slide in memory."""
        found: Stamp | None = getattr(self._source, "stamp", None)
        return found

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
    """Return the raster of the slide at *path* at *target_mpp* µm/px (None: the slide's own resolution).

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
    """Return the working grid of a slide at *target_mpp* µm/px (None: the slide's own resolution)."""
    sizes, downsamples = zip(*((level.size, level.downsample) for level in info.levels), strict=True)
    if target_mpp is None:
        return Grid(info.size, (1.0, 1.0), base_mpp, 0, (1.0, 1.0))
    return working_grid(sizes, downsamples, base_mpp, target_mpp, allow_upsample=allow_upsample)
