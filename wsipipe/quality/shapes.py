"""Masks: grown, cleaned, and outlined as polygons."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

Mask = NDArray[np.bool_]


def disc(radius: int) -> Any:
    """Return a round kernel."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def morph(mask: Mask, operation: int, radius: int) -> Mask:
    """Return *mask* after an *operation* of OpenCV with a round kernel; beyond its edge it goes on as it ends."""
    padded = np.pad(mask.astype(np.uint8), radius, mode="edge")
    done = cv2.morphologyEx(padded, operation, disc(radius))
    return np.asarray(done[radius:-radius, radius:-radius], dtype=bool)


def grow(mask: Mask, radius: int) -> Mask:
    """Return *mask* grown by *radius* px."""
    return np.asarray(cv2.dilate(mask.view(np.uint8), disc(radius)), dtype=bool)


def drop_small(mask: Mask, min_px: float) -> Mask:
    """Return *mask* without the connected components of fewer than *min_px* pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_px
    keep[0] = False
    return np.asarray(keep[labels], dtype=bool)


def outline(mask: Mask, margin_px: float) -> BaseGeometry:
    """Return the outline of *mask* grown by *margin_px*, with rounded corners, in pixels of the mask."""
    rings, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outer: dict[int, tuple[Any, list[Any]]] = {}
    for index, ring in enumerate(rings):
        if len(ring) >= 4:
            points, parent = ring[:, 0] + 0.5, int(tree[0][index][3])
            if parent < 0:
                outer[index] = points, []
            elif parent in outer:
                outer[parent][1].append(points)
    shapes = [shapely.make_valid(shapely.Polygon(shell, holes)) for shell, holes in outer.values()]
    grown = shapely.union_all(shapely.buffer(shapes, margin_px + 1.5))  # 0.5: from pixel centres to edges
    return shapely.simplify(shapely.buffer(grown, -1.0), 0.25)
