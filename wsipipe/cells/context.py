"""Numbers of a cell's surroundings: its neighbours, and the ring of tissue around its nucleus."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wsipipe.cells.kernels import regions


class Crowd:
    """The centres of all cells of a slide, asked for the neighbours of some.

    Parameters
    ----------
    xy_um : float64 (n, 2)
        Centres in µm; kept in memory with a tree over them (about 50 bytes a cell).
    """

    def __init__(self, xy_um: NDArray[np.float64]) -> None:
        self._tree = cKDTree(xy_um)

    def neighbours(
        self, xy_um: NDArray[np.float64], radius_um: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the distance to the nearest other centre (k,), NaN for none, and how many lie within *radius_um*."""
        if self._tree.n < 2:
            return np.full(len(xy_um), np.nan), np.zeros(len(xy_um))
        distances, _ = self._tree.query(xy_um, k=2)
        counts = self._tree.query_ball_point(xy_um, radius_um, return_length=True)
        return np.asarray(distances)[:, 1], np.asarray(counts, dtype=np.float64) - 1


def ring_means(
    labels: NDArray[np.int32], taken: NDArray[np.bool_], stains: NDArray[np.float32], width_px: int, count: int
) -> NDArray[np.float64]:
    """Return the mean of each stain (count, k) in a ring around each cell; NaN where there is no room for one.

    Parameters
    ----------
    labels : int32 (h, w)
        Cells 1 to *count*.
    taken : bool (h, w)
        Pixels of any cell, also of others: no ring goes over them.
    stains : float32 (h, w, k)
    width_px : int
        Steps that cells grow by; where two meet, the ring ends.
    """
    return means(rings(labels, taken, width_px, count), stains, count)


def means(labels: NDArray[np.int32], stains: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """Return the mean of each stain (count, k) over the pixels of *labels* (h, w) 1 to *count*; NaN without any."""
    ring = labels.ravel()
    pixels = np.bincount(ring, minlength=count + 1)[1:]
    each = range(stains.shape[2])
    sums = [np.bincount(ring, weights=stains[..., k].ravel(), minlength=count + 1)[1:] for k in each]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.stack(sums, axis=1) / pixels[:, None], dtype=np.float64)


def rings(labels: NDArray[np.int32], taken: NDArray[np.bool_], width_px: int, count: int) -> NDArray[np.int32]:
    """Return the ring around each cell as labels, int32 (h, w); as for :func:`ring_means`."""
    grown = np.pad(labels, 1)
    free = np.pad((~taken).astype(np.uint8), 1)
    regions.grow(grown, free, np.full(count + 1, width_px, np.int32))
    return np.asarray(np.where(labels > 0, 0, grown[1:-1, 1:-1]), np.int32)
