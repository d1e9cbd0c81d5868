"""The size of nuclei as a ruler: which resolution makes the median nucleus as large as nuclei are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TYPICAL_NUCLEUS_UM = 6.5
"""Median equivalent diameter of nuclei, by which a resolution is estimated."""
RANGE_MPP = (0.12, 0.6)
"""No estimate from annotated nuclei is outside, in µm/px."""
WITHOUT_NUCLEI_MPP = 0.25
"""Estimate where there is no nucleus."""


def mpp_of_areas(areas_px: NDArray[np.float64]) -> float:
    """Return the µm/px at which the median of nuclei with these areas (n,) in pixels measures 6.5 µm across."""
    if not areas_px.size:
        return WITHOUT_NUCLEI_MPP
    diameter = 2 * np.sqrt(np.median(areas_px) / np.pi)
    return float(np.clip(TYPICAL_NUCLEUS_UM / diameter, *RANGE_MPP))


def nuclear_mpp(labels: NDArray[np.int32]) -> float:
    """Return the resolution at which the median nucleus of *labels* measures 6.5 µm across."""
    areas = np.bincount(np.maximum(labels, 0).ravel())[1:]
    return mpp_of_areas(areas.astype(np.float64))
