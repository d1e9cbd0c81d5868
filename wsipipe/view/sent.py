"""What a page sends of outlines and names, checked; and outlines as a page takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from wsipipe.errors import SettingsError
from wsipipe.geometry import mended
from wsipipe.units import Pair

MOST_POINTS = 20_000
"""Vertices of what is drawn."""
LONGEST = 60
"""Characters of a name."""


def ring_of(points: Any) -> shapely.Geometry:
    """Return the area inside a ring of positions, mended where it crosses itself."""
    if not isinstance(points, list) or not 3 <= len(points) <= MOST_POINTS:
        raise SettingsError(f"an outline needs 3 to {MOST_POINTS:,} points")
    try:
        xy = np.array([[float(x), float(y)] for x, y in points])
    except (TypeError, ValueError) as error:
        raise SettingsError("an outline is a list of positions, x and y") from error
    if not (np.abs(xy) < 1e9).all():
        raise SettingsError("an outline is a list of positions, x and y")
    return mended(shapely.Polygon(xy))


def on_slide(shape: shapely.Geometry, size: Sequence[int]) -> shapely.Geometry:
    """Return what of *shape* lies on a slide, to 1/100 px."""
    inside = shapely.intersection(shape, shapely.box(0, 0, size[0], size[1]))
    if shapely.area(inside) <= 0:
        raise SettingsError("what was drawn lies outside the slide, or holds nothing")
    return shapely.transform(inside, lambda xy: np.round(xy, 2))


def places_of(cells: Any, most: int) -> dict[str, Pair]:
    """Return identity and place of the cells that a page names, at most so many."""
    if not isinstance(cells, list) or not 0 < len(cells) <= most:
        raise SettingsError(f"choose some cells, at most {most:,}")
    try:
        return {str(cell["cell_id"]): (float(cell["x"]), float(cell["y"])) for cell in cells}
    except (LookupError, TypeError, ValueError) as error:
        raise SettingsError("a cell is named by its identity and its place") from error


def name_of(text: Any, what: str, empty: bool = False) -> str:
    """Return a name, without blanks at its ends; *empty*: or none."""
    name = " ".join(text.split()) if isinstance(text, str) else None
    if name is None or len(name) > LONGEST or name.endswith("*") or not (name or empty):
        raise SettingsError(f"a {what} is 1 to {LONGEST} characters that do not end in *")
    return name


def centre_of(shape: shapely.Polygon) -> Pair:
    """Return the centroid of a shape."""
    point = shapely.centroid(shape)
    return point.x, point.y


def rings_of(shape: shapely.Geometry) -> list[Any]:
    """Return the outlines and holes of the polygons of *shape*, as lists of positions."""
    polygons = [part for part in shapely.get_parts(shape).tolist() if isinstance(part, shapely.Polygon)]
    rings = [ring for polygon in polygons for ring in (polygon.exterior, *polygon.interiors)]
    return [shapely.get_coordinates(ring).tolist() for ring in rings]
