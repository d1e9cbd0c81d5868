"""Polygons of cells in base pixels: valid, simple, without holes, and the same from every window."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.cells.instances import Cells
from wsipipe.cells.kernels import contours, regions
from wsipipe.geometry import Grid
from wsipipe.units import Size

TOLERANCE = 0.2
"""Greatest movement of an outline by one step of simplification, in grid px."""
DECIMALS = 2
"""Coordinates are rounded to 1/100 base px."""

Polygons = NDArray[np.object_]
Image = NDArray[np.uint8]
Floats = NDArray[np.float64]
Rings = tuple[Floats, NDArray[np.int64]]


def trace(
    cells: Cells,
    foreground: Image,
    threshold: float,
    grid: Grid,
    *,
    base_size: Size | None = None,
    tolerance: float = TOLERANCE,
) -> Polygons:
    """Return the outline of every cell as a :class:`shapely.Polygon` in base px.

    The contour crosses between two pixel centres where the foreground, interpolated, equals the threshold; halfway
    between touching cells, so that neighbours share their border. Simplification keeps the area.

    Parameters
    ----------
    cells : Cells
    foreground : uint8 (h, w)
        Foreground probability times 255 of ``cells.window``.
    threshold : float
        The threshold of the cells.
    grid : Grid
    base_size : (int, int), optional
        Width and height of the slide in base px, to which outlines are clipped; default: what the grid covers.
    tolerance : float
        Greatest movement of the outline by one step of simplification, in grid px; 0 keeps every vertex.

    Returns
    -------
    object array (n,)
        Valid, simple polygons without holes; exteriors are clockwise on the screen (y down).
    """
    if foreground.shape != cells.label_image.shape:
        raise ValueError(f"foreground is {foreground.shape}; expected that of the window, {cells.label_image.shape}")
    return _outlines(cells, np.ascontiguousarray(foreground), threshold * 255, grid, base_size, tolerance)


def expand(
    cells: Cells,
    nuclei: Polygons,
    by_um: float,
    grid: Grid,
    *,
    base_size: Size | None = None,
    tolerance: float = TOLERANCE,
) -> Polygons:
    """Return cell polygons: nuclei grown by *by_um*, less where neighbours meet.

    All nuclei, also those of other cores, grow at once, one pixel a step, as regular octagons; of two that arrive in
    the same step the one whose first pixel comes first takes the pixel. Cells have no holes, so a cell that closes
    around a smaller one (a nucleus in a bay of another) overlaps it.

    Parameters
    ----------
    cells : Cells
        From ``find_cells(..., neighbours=True)`` of a window that reaches ``halo(rules, names, expand_px)`` beyond the
        core, with :func:`expand_px`.
    nuclei : object array (n,)
        The outlines of *cells*; each lies inside its cell's.
    by_um : float
        Microns.
    grid, base_size, tolerance
        As in :func:`trace`.
    """
    steps = expand_px(by_um, grid)
    if steps == 0 or len(cells) == 0:
        return nuclei.copy()
    if cells.neighbours is None:
        raise ValueError("cells without their neighbours cannot be expanded; expected find_cells(..., neighbours=True)")
    grown = _grown(cells, cells.neighbours, steps, grid)
    outlines = _outlines(grown, np.zeros(grown.label_image.shape, np.uint8), 0.0, grid, base_size, tolerance)
    return _around(outlines, nuclei)


def expand_px(by_um: float, grid: Grid) -> int:
    """Return *by_um* in whole grid px."""
    return round(by_um / math.sqrt(grid.um2_per_px))


def _outlines(
    cells: Cells, image: Image, level: float, grid: Grid, base_size: Size | None, tolerance: float
) -> Polygons:
    if len(cells) == 0:
        return np.zeros(0, np.object_)
    numbers = np.arange(1, len(cells) + 1)
    shift = np.array(cells.window[:2], np.int32)
    corner = cells.box[:, :2] - shift
    columns = regions.first_columns(cells.label_image, corner[:, 0].copy(), corner[:, 1].copy(), numbers)
    first = np.stack([columns, corner[:, 1]], axis=1)

    def rings(which: NDArray[np.intp], tolerance: float) -> Rings:
        xy, offsets = contours.rings(
            cells.label_image, numbers[which], first[which], cells.sums[which, 0], image, level, shift, float(tolerance)
        )
        return _in_base(xy, grid, base_size), offsets

    return _valid(rings, len(cells), tolerance)


def _in_base(xy: Floats, grid: Grid, base_size: Size | None) -> Floats:
    """Return grid coordinates in base px, rounded and clipped to the slide."""
    limit = np.array(base_size or (grid.size[0] * grid.scale[0], grid.size[1] * grid.scale[1]), np.float64)
    rounded: Floats = np.round(np.clip(xy * np.array(grid.scale), 0.0, limit), DECIMALS)
    return rounded


def _valid(rings: Callable[[NDArray[np.intp], float], Rings], count: int, tolerance: float) -> Polygons:
    """Return polygons of all rings; the few that simplification made invalid keep every vertex."""
    polygons = _polygons(*rings(np.arange(count), tolerance))
    bad = np.flatnonzero(~shapely.is_valid(polygons))
    if len(bad):
        polygons[bad] = _polygons(*rings(bad, 0.0))
    for i in bad[~shapely.is_valid(polygons[bad])]:
        polygons[i] = _repaired(polygons[i])
    return polygons


def _polygons(xy: Floats, offsets: NDArray[np.int64]) -> Polygons:
    """Return polygons of unclosed rings, without repeated vertices."""
    count = len(offsets) - 1
    ring = np.repeat(np.arange(count), np.diff(offsets))
    previous = np.arange(-1, len(xy) - 1)
    previous[offsets[:-1]] = offsets[1:] - 1
    fresh = (xy != xy[previous]).any(axis=1)
    few = np.bincount(ring[fresh], minlength=count) < 3
    fresh |= few[ring]
    result: Polygons = shapely.polygons(shapely.linearrings(xy[fresh], indices=ring[fresh]))
    return result


def _repaired(polygon: shapely.Polygon) -> shapely.Polygon:
    """Return the largest valid part of an invalid polygon, without holes, on the grid of 1/100 px."""
    step = 10.0**-DECIMALS
    best = _largest(shapely.make_valid(polygon))
    best = _largest(shapely.set_precision(shapely.Polygon(best.exterior), step))
    if not best.is_empty:
        return best
    x0, y0, x1, y1 = polygon.bounds  # everything fell onto a line: smaller than the rounding
    return shapely.box(x0, y0, max(x1, round(x0 + step, DECIMALS)), max(y1, round(y0 + step, DECIMALS)))


def _largest(geometry: shapely.Geometry) -> shapely.Polygon:
    """Return the largest polygon of a geometry; an empty one where it has none."""
    parts = shapely.get_parts(geometry)
    parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return parts[np.argmax(shapely.area(parts))] if len(parts) else shapely.Polygon()


def _grown(cells: Cells, neighbours: NDArray[np.int32], steps: int, grid: Grid) -> Cells:
    """Return *cells* with regions grown by *steps* px inside the slide (label image, sums and boxes)."""
    count = len(cells)
    (h, w), (x0, y0) = neighbours.shape, cells.window[:2]
    labels = np.pad(np.where(neighbours > 0, neighbours + count, cells.label_image).astype(np.int32), 1)
    old = regions.renumber(labels, int(labels.max()))
    free = np.zeros(labels.shape, np.uint8)
    free[max(1, 1 - y0) : 1 + min(h, grid.size[1] - y0), max(1, 1 - x0) : 1 + min(w, grid.size[0] - x0)] = 1
    regions.grow(labels, free, np.full(len(old), steps, np.int32))
    numbers = np.where(old <= count, old, 0).astype(np.int32)
    image = np.empty((h, w), np.int32)
    regions.relabel(labels, numbers, image)
    nothing = np.zeros((1, h, w), np.uint8)
    sums, box, _ = regions.accumulate(np.pad(image, 1), nothing, np.zeros(0, np.int64), x0, y0, count)
    return dataclasses.replace(cells, label_image=image, sums=sums, box=box)


def _around(outlines: Polygons, nuclei: Polygons) -> Polygons:
    """Return *outlines*, widened by 1/50 px where rounding or simplification let a nucleus stick out."""
    out = outlines.copy()
    short = np.flatnonzero(~shapely.covers(outlines, nuclei))
    if len(short):
        wide = shapely.buffer(nuclei[short], 0.02, join_style="mitre", quad_segs=1)
        joined = shapely.union(outlines[short], wide, grid_size=10.0**-DECIMALS)
        for i in np.flatnonzero(shapely.get_type_id(joined) != shapely.GeometryType.POLYGON):
            joined[i] = _largest(joined[i])  # snapping may leave specks beside the polygon
        out[short] = shapely.polygons(shapely.get_exterior_ring(joined))
    return out
