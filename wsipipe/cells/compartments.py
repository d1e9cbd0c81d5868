"""How much of each stain the compartments of a cell took up: nucleus, cytoplasm, whole cell."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from wsipipe.stain.unmix import StainVectors

COMPARTMENTS = NUCLEUS, CYTOPLASM, CELL = "nucleus", "cytoplasm", "cell"
"""The cytoplasm is the expanded cell without its nucleus; of a cell not expanded, a ring around the nucleus."""
STATISTICS = ("mean", "max", *(f"p{p}" for p in range(10, 100, 10)))


def column_of(compartment: str, stain: str, statistic: str) -> str:
    """Return the column of a measurement: nucleus_dab_od_mean."""
    return f"{compartment}_{stain}_od_{statistic}"


def compartment_names(vectors: StainVectors) -> list[str]:
    """Return the columns of all compartments, in the order of :func:`compartment_stains`."""
    return [column_of(c, key, s) for c in COMPARTMENTS for key in vectors.keys for s in STATISTICS]


def compartment_stains(
    nuclei: NDArray[np.int32], cytoplasm: NDArray[np.int32], stains: NDArray[np.float32], count: int
) -> NDArray[np.float64]:
    """Return mean, maximum and deciles of each stain in each compartment (count, 3 * k * 11).

    Parameters
    ----------
    nuclei, cytoplasm : int32 (h, w)
        Cells 1 to *count*, 0 elsewhere; no pixel belongs to both.
    stains : float32 (h, w, k)
        Optical densities (:meth:`wsipipe.stain.unmix.StainVectors.amounts`).

    Returns
    -------
    float64
        NaN where a cell has no pixel of the compartment.
    """
    whole = np.where(nuclei > 0, nuclei, cytoplasm).astype(np.int32)
    flat = stains.reshape(-1, stains.shape[2])
    found = [_statistics(labels.ravel(), flat, count) for labels in (nuclei, cytoplasm, whole)]
    return np.concatenate(found, axis=1).reshape(count, -1)


@numba.njit(cache=True, nogil=True)
def _statistics(labels: NDArray[np.int32], values: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """Return mean, maximum and deciles (count, k, 11) of the *values* (n, k) with each of the *labels* (n,)."""
    stains = values.shape[1]
    starts = np.zeros(count + 2, np.int64)
    for i in range(len(labels)):
        starts[labels[i] + 1] += 1
    for c in range(1, count + 2):
        starts[c] += starts[c - 1]
    places, order = starts.copy(), np.empty(len(labels), np.int64)
    for i in range(len(labels)):
        order[places[labels[i]]] = i
        places[labels[i]] += 1
    out = np.full((count, stains, 11), np.nan)
    for c in range(1, count + 1):
        rows = order[starts[c] : starts[c + 1]]
        n = len(rows)
        if n == 0:
            continue
        for k in range(stains):
            sorted_ = np.empty(n, np.float64)
            for i in range(n):
                sorted_[i] = values[rows[i], k]
            sorted_.sort()
            out[c - 1, k, 0] = sorted_.sum() / n  # sorted, so that the order of pixels does not count
            out[c - 1, k, 1] = sorted_[n - 1]
            for d in range(1, 10):
                place = d * (n - 1) / 10
                below = int(place)
                above = min(below + 1, n - 1)
                out[c - 1, k, 1 + d] = sorted_[below] + (sorted_[above] - sorted_[below]) * (place - below)
    return out
