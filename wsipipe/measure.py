"""Numbers of each cell: size and shape in microns, and how much stain it took up."""

from __future__ import annotations

import math
from typing import Protocol

import numba
import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.geometry import Grid
from wsipipe.units import Box, Pair

HEMATOXYLIN = (0.65, 0.70, 0.29)
"""Optical density of haematoxylin in red, green and blue (Ruifrok and Johnston 2001, table of H&E-DAB)."""
EOSIN = (0.07, 0.99, 0.11)
"""Optical density of eosin in red, green and blue (same source)."""

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
"""Names of what :func:`measure` returns, in order."""


class LabelledCells(Protocol):
    """The part of :class:`wsipipe.instances.Cells` that measuring needs."""

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
    cells: LabelledCells, polygons: NDArray[np.object_], rgb: NDArray[np.uint8], grid: Grid
) -> dict[str, NDArray[np.float64]]:
    """Return one array (n,) for each name of :data:`MEASURES`.

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
    moments, stains = _sums(cells.label_image, rgb, _stain_table(), len(cells.sums), *_origins(cells))
    count = np.maximum(cells.sums[:, 0], 1).astype(np.float64)
    base_mpp = grid.mpp[0] / grid.scale[0], grid.mpp[1] / grid.scale[1]
    area = shapely.area(polygons)
    columns = (
        *((cells.sums[:, 1 + axis] / count + 0.5) * grid.scale[axis] for axis in (0, 1)),
        area * (base_mpp[0] * base_mpp[1]),
        perimeter_um(polygons, base_mpp),
        _eccentricity(moments / count[:, None], grid.mpp),
        _solidity(polygons, area),
        *_mean_and_std(stains[:, :2], count),
        *_mean_and_std(stains[:, 2:], count),
    )
    return dict(zip(MEASURES, columns, strict=True))


def perimeter_um(polygons: NDArray[np.object_], base_mpp: Pair) -> NDArray[np.float64]:
    """Return the length of each polygon's outline (n,) in µm; *base_mpp* is µm per base pixel in x and y."""
    xy, owner = shapely.get_coordinates(shapely.get_exterior_ring(polygons), return_index=True)
    steps = np.hypot(*(np.diff(xy, axis=0) * base_mpp).T)
    steps[owner[1:] != owner[:-1]] = 0
    return np.bincount(owner[1:], weights=steps, minlength=len(polygons)).astype(np.float64)


def unmixing() -> NDArray[np.float64]:
    """Return the matrix (2, 3) that takes optical densities of R, G, B to amounts of haematoxylin and eosin.

    Colour deconvolution (Ruifrok and Johnston 2001): the inverse of the stains' unit vectors, with a third vector at
    right angles to both, which takes the rest.
    """
    h, e = (np.array(v) / np.linalg.norm(v) for v in (HEMATOXYLIN, EOSIN))
    rest = np.cross(h, e)
    return np.linalg.inv(np.stack([h, e, rest / np.linalg.norm(rest)], axis=1))[:2]


def stain_image(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the amounts of haematoxylin and eosin in each pixel (h, w, 2), in optical densities (base 10)."""
    table = _stain_table().astype(np.float32)
    return np.asarray(table[0][rgb[..., 0]] + table[1][rgb[..., 1]] + table[2][rgb[..., 2]], dtype=np.float32)


def _check(cells: LabelledCells, polygons: NDArray[np.object_], rgb: NDArray[np.uint8]) -> None:
    shape = cells.label_image.shape
    n = len(cells.sums)
    if rgb.shape != (*shape, 3) or len(polygons) != n:
        raise ValueError(
            f"pixels {rgb.shape} and {len(polygons)} polygons do not fit a window of {shape} with {n} cells"
        )


def _stain_table() -> NDArray[np.float64]:
    """Return (3, 256, 2): what each value of R, G and B adds to haematoxylin and eosin."""
    density = -np.log10(np.maximum(np.arange(256), 1) / 255.0)
    return np.ascontiguousarray(unmixing().T[:, None, :] * density[None, :, None])


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
    """Return sums over each cell's pixels: dx, dy, dx², dy², dx·dy (n, 5), and h, h², e, e² (n, 4)."""
    moments = np.zeros((n, 5), np.int64)
    stains = np.zeros((n, 4), np.float64)
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
            h = table[0, r, 0] + table[1, g, 0] + table[2, b, 0]
            e = table[0, r, 1] + table[1, g, 1] + table[2, b, 1]
            stains[i, 0] += h
            stains[i, 1] += h * h
            stains[i, 2] += e
            stains[i, 3] += e * e
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
