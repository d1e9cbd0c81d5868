"""Numbers of each cell: size and shape in microns, and how much stain it took up."""

from __future__ import annotations

import math
from typing import Protocol

import numba
import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.geometry import Grid
from wsipipe.stain.unmix import HE, StainVectors
from wsipipe.units import Box, Pair

MEASURES = (
    "x",
    "y",
    "area_um2",
    "perimeter_um",
    "eccentricity",
    "solidity",
    "hematoxylin_od_mean",
    "hematoxylin_od_std",
    "eosin_od_mean",
    "eosin_od_std",
)
"""Names of what :func:`measure` returns, in order; mean and spread of other stains come after them."""


class LabelledCells(Protocol):
    """The part of :class:`wsipipe.cells.instances.Cells` that measuring needs."""

    @property
    def label_image(self) -> NDArray[np.int32]:
        """Cell number (1..n) of each pixel of the window, 0 elsewhere; (h, w)."""

    @property
    def window(self) -> Box:
        """The window in grid pixels."""

    @property
    def sums(self) -> NDArray[np.int64]:
        """Pixels, sum of x and sum of y of each cell, in global grid pixel indices; (n, 3)."""


def measure(
    cells: LabelledCells,
    polygons: NDArray[np.object_],
    rgb: NDArray[np.uint8],
    grid: Grid,
    vectors: StainVectors = HE,
) -> dict[str, NDArray[np.float64]]:
    """Return one array (n,) for each name of :data:`MEASURES`, and of :func:`stain_names` of *vectors*.

    Centroid, eccentricity and stain come from the cell's pixels, area, perimeter and solidity from its polygon.

    Parameters
    ----------
    cells : Cells
        n cells of a window of (h, w) grid pixels.
    polygons : (n,) array of shapely.Polygon
        Their outlines, in base pixels.
    rgb : (h, w, 3) uint8
        Pixels of the window.
    grid : Grid
        The working grid; its resolution may differ in x and y.
    vectors : StainVectors
        Stains of the slide; what has none of a standard stain has NaN there.

    Returns
    -------
    dict of (n,) float64
        x, y in base pixels; ``_um2`` in µm², ``_um`` in µm; eccentricity (0 a disc, towards 1 a line) of the ellipse of
        equal second moments; solidity (polygon over its convex hull); ``_od`` optical densities (base 10).

    Raises
    ------
    ValueError
        When window, pixels and polygons do not fit each other.
    """
    _check(cells, polygons, rgb)
    moments, stains = _sums(cells.label_image, rgb, vectors.table, len(cells.sums), *_origins(cells))
    count = np.maximum(cells.sums[:, 0], 1).astype(np.float64)
    base_mpp = grid.mpp[0] / grid.scale[0], grid.mpp[1] / grid.scale[1]
    area = shapely.area(polygons)
    columns = (
        *((cells.sums[:, 1 + axis] / count + 0.5) * grid.scale[axis] for axis in (0, 1)),
        area * (base_mpp[0] * base_mpp[1]),
        perimeter_um(polygons, base_mpp),
        _eccentricity(moments / count[:, None], grid.mpp),
        _solidity(polygons, area),
    )
    found = dict(zip(MEASURES, columns))
    found |= {name: np.full(len(count), math.nan) for name in MEASURES if name not in found}
    for k in range(len(vectors.stains)):
        names = stain_names(vectors)[2 * k : 2 * k + 2]
        found |= dict(zip(names, _mean_and_std(stains[:, 2 * k : 2 * k + 2], count)))
    return found


def stain_names(vectors: StainVectors) -> list[str]:
    """Return the columns of the stains *vectors*: mean and spread of each."""
    return [f"{key}_od_{what}" for key in vectors.keys for what in ("mean", "std")]


def perimeter_um(polygons: NDArray[np.object_], base_mpp: Pair) -> NDArray[np.float64]:
    """Return the length of each polygon's outline (n,) in µm; *base_mpp* is µm per base pixel in x and y."""
    xy, owner = shapely.get_coordinates(shapely.get_exterior_ring(polygons), return_index=True)
    steps = np.hypot(*(np.diff(xy, axis=0) * base_mpp).T)
    steps[owner[1:] != owner[:-1]] = 0
    return np.bincount(owner[1:], weights=steps, minlength=len(polygons)).astype(np.float64)


def _check(cells: LabelledCells, polygons: NDArray[np.object_], rgb: NDArray[np.uint8]) -> None:
    shape = cells.label_image.shape
    n = len(cells.sums)
    if rgb.shape != (*shape, 3) or len(polygons) != n:
        raise ValueError(
            f"pixels {rgb.shape} and {len(polygons)} polygons do not fit a window of {shape} with {n} cells"
        )


def _origins(cells: LabelledCells) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each cell's integer centroid (n,), in window pixels, about which its moments are summed exactly."""
    count = np.maximum(cells.sums[:, 0], 1)
    return cells.sums[:, 1] // count - cells.window[0], cells.sums[:, 2] // count - cells.window[1]


@numba.njit(cache=True, nogil=True)
def _sums(
    labels: NDArray[np.int32],
    rgb: NDArray[np.uint8],
    table: NDArray[np.float64],
    n: int,
    cx: NDArray[np.int64],
    cy: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return sums over each cell's pixels: dx, dy, dx², dy², dx·dy (n, 5), and of each stain s, s² (n, 2k)."""
    moments = np.zeros((n, 5), np.int64)
    stains = np.zeros((n, 2 * table.shape[2]), np.float64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            i = labels[y, x] - 1
            if i < 0:
                continue
            dx, dy = x - cx[i], y - cy[i]
            moments[i, 0] += dx
            moments[i, 1] += dy
            moments[i, 2] += dx * dx
            moments[i, 3] += dy * dy
            moments[i, 4] += dx * dy
            r, g, b = rgb[y, x, 0], rgb[y, x, 1], rgb[y, x, 2]
            for k in range(table.shape[2]):
                amount = table[0, r, k] + table[1, g, k] + table[2, b, k]
                stains[i, 2 * k] += amount
                stains[i, 2 * k + 1] += amount * amount
    return moments, stains


def _eccentricity(means: NDArray[np.float64], mpp: Pair) -> NDArray[np.float64]:
    """Return the eccentricity (n,) from mean dx, dy, dx², dy², dx·dy (n, 5) in grid pixels."""
    mx, my, mxx, myy, mxy = means.T
    xx = (mxx - mx * mx + 1 / 12) * mpp[0] ** 2  # 1/12: the spread of a pixel about its own centre
    yy = (myy - my * my + 1 / 12) * mpp[1] ** 2
    xy = (mxy - mx * my) * (mpp[0] * mpp[1])
    middle, half = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    eccentricity: NDArray[np.float64] = np.sqrt(np.clip(2 * half / (middle + half), 0, 1))
    return eccentricity


def _solidity(polygons: NDArray[np.object_], area: NDArray[np.float64]) -> NDArray[np.float64]:
    hull = shapely.area(shapely.convex_hull(polygons))
    ratio: NDArray[np.float64] = np.divide(area, hull, out=np.full(len(hull), math.nan), where=hull > 0)
    return ratio


def _mean_and_std(
    sums: NDArray[np.float64], count: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = sums[:, 0] / count
    return mean, np.sqrt(np.maximum(sums[:, 1] / count - mean * mean, 0))
