"""Haralick's texture of the chromatin, by mahotas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsipipe.errors import MissingDependency

NAMES = (
    "angular_second_moment",
    "contrast",
    "correlation",
    "variance",
    "inverse_difference_moment",
    "sum_average",
    "sum_variance",
    "sum_entropy",
    "entropy",
    "difference_variance",
    "difference_entropy",
    "information_correlation_1",
    "information_correlation_2",
)
"""Haralick, Shanmugam and Dinstein 1973, in their order."""
DARKEST = 2.0
"""Optical density of the highest grey level."""


def haralick(
    labels: NDArray[np.int32], hematoxylin: NDArray[np.float32], levels: int, count: int
) -> NDArray[np.float64]:
    """Return 13 texture numbers (count, 13) of each cell 1 to *count*: means over the four directions at 1 px.

    Optical densities from 0 to 2 are cut into *levels* grey levels; pixels outside the cell take no part. NaN for cells
    too small for a texture.

    Raises
    ------
    MissingDependency
    """
    try:
        from mahotas.features import haralick as of
    except ImportError as error:
        raise MissingDependency.of("mahotas", "texture", "--add texture") from error
    grey = (1 + np.clip(hematoxylin / DARKEST, 0, 1) * (levels - 1)).round().astype(np.uint8)
    out = np.full((count, len(NAMES)), np.nan)
    for i, place in enumerate(ndimage.find_objects(labels, max_label=count)):
        if place is None:
            continue
        crop = np.where(labels[place] == i + 1, grey[place], 0).astype(np.uint8)
        if min(crop.shape) > 2:
            out[i] = _of_one(of, crop)
    return out


def _of_one(of: object, crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    assert callable(of)
    try:
        return np.asarray(of(crop, ignore_zeros=True, return_mean=True), dtype=np.float64)
    except ValueError:  # no two pixels of the cell lie beside each other in some direction
        return np.full(len(NAMES), np.nan)
