"""Tiles of the slide as a deep-zoom pyramid of powers of two, cut when they are asked for."""

from __future__ import annotations

import copy
import functools
import logging
import math
import queue

import cv2

from wsipipe.slide import Slide
from wsipipe.slide.overview import Gaps, read_scaled
from wsipipe.stain.unmix import StainVectors
from wsipipe.units import Size

log = logging.getLogger(__name__)

TILE = 256
"""Side of a tile in pixels."""
QUALITY = 85
"""Of the JPEG."""
READERS = 4
"""The slide is open this many times at most, so that tiles are decoded side by side."""
CACHED = 2048
"""Tiles kept in memory: about 15 kB each."""


class Pyramid:
    """A slide as tiles of 256 px.

    Level *max_level* has the pixels of level 0, and every level below half the size of the one above, down to level 0
    of one pixel: the layout of Deep Zoom Images.

    Parameters
    ----------
    slide : Slide
        Is copied for each thread (readers reopen their file by path), and stays the caller's to close.
    vectors : StainVectors, optional
        Stains that tiles may show alone.
    """

    def __init__(self, slide: Slide, vectors: StainVectors | None = None) -> None:
        self.vectors = vectors
        self.info = slide.info
        self.size: Size = slide.info.size
        self.max_level = max(0, math.ceil(math.log2(max(self.size))))
        self._original, self._told = slide, False
        self._idle: queue.LifoQueue[Slide | None] = queue.LifoQueue()
        for _ in range(READERS):
            self._idle.put(None)
        self.tile = functools.lru_cache(CACHED)(self._cut)
        """Return a tile: see :meth:`_cut`."""

    def _cut(self, level: int, column: int, row: int, stain: int = -1) -> bytes | None:
        """Return the tile at *column*, *row* of *level* as JPEG; None where there is none.

        With *stain* as that stain alone would look. What cannot be decoded has the slide's background colour, and is
        told of once.
        """
        stains = () if self.vectors is None else self.vectors.stains
        if not 0 <= level <= self.max_level or stain >= len(stains):
            return None
        scale = 2 ** (self.max_level - level)
        width, height = (min(TILE, -(-side // scale) - i * TILE) for side, i in zip(self.size, (column, row)))
        if column < 0 or row < 0 or width <= 0 or height <= 0:
            return None
        x, y = column * TILE * scale, row * TILE * scale
        slide, gaps = self._idle.get(), Gaps()
        try:
            slide = slide or copy.copy(self._original)
            box = (x, y, x + width * scale, y + height * scale)
            rgb = read_scaled(slide, box, (float(scale), float(scale)), (width, height), gaps)
        finally:
            self._idle.put(slide)
        if stain >= 0 and self.vectors is not None:
            rgb = self.vectors.alone(rgb, stain)
        if gaps.lost and not self._told:
            self._told = True
            log.warning("%s: parts of it cannot be read, and are shown in its background colour", self.info.path)
        _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        return bytes(data)

    def close(self) -> None:
        """Close the copies that were opened for reading."""
        for _ in range(READERS):
            slide = self._idle.get()
            if slide is not None:
                slide.close()
            self._idle.put(None)
