"""Areas of a slide (annotations, what is wrong with it) as tiles with transparency, drawn when they are asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.formats.colours import Rgb
from wsipipe.units import Size

TILE = 512
"""Side of a tile in pixels."""
FILL, LINE_PX = 70, 2
"""Opacity of an area, of 255, and width of its outline."""
CACHED = 512
_FIXED = 4  # fractional bits of OpenCV's fixed-point coordinates
_FARTHEST = 1 << 13  # tile pixels; OpenCV draws nothing farther


class Area(NamedTuple):
    """A shape in base pixels, what it is of ("" for nothing), and its colour."""

    shape: shapely.Geometry
    kind: str
    colour: Rgb


class Areas:
    """Areas of a slide. Safe to share between threads.

    Parameters
    ----------
    areas : sequence of Area
        Larger ones are drawn below smaller ones.
    size : (int, int)
        Of the slide.
    max_level : int
        Level of its pyramid of tiles that has the pixels of level 0.
    """

    def __init__(self, areas: Sequence[Area], size: Size, max_level: int) -> None:
        self._areas = sorted(areas, key=lambda area: -float(shapely.area(area.shape)))
        self._tree = shapely.STRtree([area.shape for area in self._areas])
        self._size, self._max_level = size, max_level
        self.names = tuple(dict.fromkeys(area.kind for area in areas))
        """What areas are of, in the order of the list."""
        self.tile = functools.lru_cache(CACHED)(self._draw)
        """Return a tile: see :meth:`_draw`."""

    def kinds(self) -> list[dict[str, Any]]:
        """Return name, colour and number of areas of each kind."""
        found = []
        for name in self.names:
            own = [area for area in self._areas if area.kind == name]
            found.append({"name": name or "no class", "colour": own[0].colour, "areas": len(own)})
        return found

    def _draw(self, level: int, column: int, row: int, hidden: frozenset[int] = frozenset()) -> bytes | None:
        """Return the tile at *column*, *row* of *level* as PNG, without *hidden* kinds; None where there is none."""
        if not 0 <= level <= self._max_level:
            return None
        scale = 2 ** (self._max_level - level)
        width, height = (min(TILE, -(-side // scale) - i * TILE) for side, i in zip(self._size, (column, row)))
        if width <= 0 or height <= 0:
            return None
        corner, pad = np.array([column * TILE, row * TILE], np.float64), LINE_PX + 1
        x0, y0 = corner * scale
        box = shapely.box(x0 - pad * scale, y0 - pad * scale, x0 + (width + pad) * scale, y0 + (height + pad) * scale)
        around = box.buffer(4 * pad * scale, join_style="mitre")  # outlines of what is cut off lie outside of the tile
        shown = {name for k, name in enumerate(self.names) if k not in hidden}
        rgba = np.zeros((height, width, 4), np.uint8)
        for i in np.sort(self._tree.query(box, predicate="intersects")).tolist():
            area = self._areas[i]
            if area.kind in shown:
                near = shapely.intersection(area.shape, around)
                self._paint(rgba, [_placed(ring, corner, scale) for ring in _rings(near)], area.colour)
        return bytes(cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))[1])

    @staticmethod
    def _paint(rgba: NDArray[np.uint8], rings: list[NDArray[np.int32]], colour: Rgb) -> None:
        mask = np.zeros(rgba.shape[:2], np.uint8)
        cv2.fillPoly(mask, rings, 255, cv2.LINE_8, _FIXED)
        rgba[mask > 0] = (*colour, FILL)
        line = np.zeros(rgba.shape[:2], np.uint8)
        cv2.polylines(line, rings, True, 255, LINE_PX, cv2.LINE_AA, _FIXED)
        drawn = line > 0
        rgba[drawn, :3] = colour
        rgba[drawn, 3] = np.maximum(rgba[drawn, 3], line[drawn])


def _rings(shape: shapely.Geometry) -> Iterator[shapely.LinearRing]:
    """Yield outlines and holes of the polygons of *shape*."""
    for part in shapely.get_parts(shape).tolist():
        if isinstance(part, shapely.Polygon) and not part.is_empty:
            yield part.exterior
            yield from part.interiors


def _placed(ring: shapely.LinearRing, corner: NDArray[np.float64], scale: float) -> NDArray[np.int32]:
    """Return the vertices of a ring in OpenCV's fixed-point pixels of a tile."""
    xy = shapely.get_coordinates(ring) / scale - corner - 0.5
    return np.rint(np.clip(xy, -_FARTHEST, _FARTHEST) * (1 << _FIXED)).astype(np.int32)
