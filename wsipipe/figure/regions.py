"""A region as the tiles that a network takes, and maps of tiles put together again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsipipe.raster.chunks import reflected
from wsipipe.raster.tiling import TILE
from wsipipe.units import Pair

MARGIN = 128
"""Surroundings on every side of a tile that an encoder sees too, in pixels."""
STEP = 128
"""From one tile of a large region to the next: of each only the middle is kept, but at the region's edge."""

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Region:
    """A square of tissue to look at.

    Attributes
    ----------
    name : str
        Under its pictures.
    window : uint8 (side + 2 MARGIN, side + 2 MARGIN, 3)
        Its pixels and those around it, at the model's resolution.
    corner_base : (float, float)
        Its upper left corner in base pixels.
    scale : (float, float)
        Base pixels per pixel.
    mpp : (float, float) or None
        Microns per pixel.
    """

    name: str
    window: Pixels
    corner_base: Pair = (0.0, 0.0)
    scale: Pair = (1.0, 1.0)
    mpp: Pair | None = None

    @property
    def side(self) -> int:
        """Side in pixels."""
        return len(self.window) - 2 * MARGIN

    @property
    def pixels(self) -> Pixels:
        """Its own pixels, uint8 (side, side, 3)."""
        return self.window[MARGIN:-MARGIN, MARGIN:-MARGIN]

    def place(self, point_base: Pair) -> Pair:
        """Return a point (x, y) in base pixels as shares of the side, in [0, 1) inside the region."""
        (x, y), (x0, y0), (sx, sy) = point_base, self.corner_base, self.scale
        return (x - x0) / sx / self.side, (y - y0) / sy / self.side

    def tiles(self, step: int) -> tuple[Pixels, Pixels]:
        """Return tiles (n, 256, 256, 3), row by row, and the same with their surroundings (n, 512, 512, 3)."""
        wide = TILE + 2 * MARGIN
        windows = np.stack([self.window[y : y + wide, x : x + wide] for x, y in corners(self.side, step)])
        return np.ascontiguousarray(windows[:, MARGIN:-MARGIN, MARGIN:-MARGIN]), windows


def corners(side: int, step: int) -> list[tuple[int, int]]:
    """Return the upper left corners (x, y) of the tiles of a region, row by row."""
    places = range(0, side - TILE + 1, step)
    return [(x, y) for y in places for x in places]


def together(maps: NDArray[np.generic], side: int, step: int) -> NDArray[np.generic]:
    """Return the maps of a region's tiles, (n, m, m, C), as one of the region: (side m / 256, side m / 256, C).

    Of tiles that overlap each gives its middle, where it has seen the most of what is around.
    """
    unit, keep = TILE // maps.shape[1], (TILE - step) // 2
    out = np.empty((side // unit, side // unit, *maps.shape[3:]), maps.dtype)
    for tile, (x, y) in zip(maps, corners(side, step)):
        (x0, x1), (y0, y1) = (_kept(start, side, keep) for start in (x, y))
        part = tile[(y0 - y) // unit : (y1 - y) // unit, (x0 - x) // unit : (x1 - x) // unit]
        out[y0 // unit : y1 // unit, x0 // unit : x1 // unit] = part
    return out


def _kept(start: int, side: int, keep: int) -> tuple[int, int]:
    """Return from where to where a tile at *start* is kept."""
    return start + (keep if start else 0), start + TILE - (keep if start + TILE < side else 0)


def joined(maps: Mapping[int, Floats], side: int) -> dict[int, Floats]:
    """Return maps by their side in a tile, put together over a region of *side* pixels."""
    return {size: together(found, side, STEP).astype(np.float32, copy=False) for size, found in maps.items()}


def cut(pixels: Pixels, centre: tuple[int, int], side: int) -> Pixels:
    """Return a window for a region of *side* pixels around *centre* (x, y) of a picture; outside, its reflection."""
    half, (height, width) = side // 2 + MARGIN, pixels.shape[:2]
    columns = reflected(centre[0] - half, centre[0] + half, width)
    rows = reflected(centre[1] - half, centre[1] + half, height)
    return np.ascontiguousarray(pixels[rows[:, None], columns])
