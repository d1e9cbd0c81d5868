"""Black and white of a slide: one scale for all its tiles, as networks that normalise their input want it.

Normalised tile by tile, the same cell would look different in each, and a seam would show.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from wsipipe.stain import is_glass

Levels = tuple[tuple[float, ...], ...]
"""(black, white) of red, green and blue, in [0, 255]."""
WHOLE: Levels = ((0.0, 255.0),) * 3


def levels_of(tiles: Iterable[NDArray[np.uint8]], percentiles: tuple[float, float] | None) -> Levels:
    """Return what becomes 0 and 1 in each channel: these *percentiles* of RGB *tiles* (h, w, 3) that are not glass."""
    if percentiles is None:
        return WHOLE
    counts = np.zeros((3, 256), np.int64)
    for tile in tiles:
        if not is_glass(tile):
            counts += [np.bincount(tile[..., channel].ravel(), minlength=256) for channel in range(3)]
    if not counts.any():
        return WHOLE
    shares = counts.cumsum(axis=1) / counts.sum(axis=1, keepdims=True)
    found = [[int(np.searchsorted(share, p / 100)) for p in percentiles] for share in shares]
    return tuple((float(min(low, 254)), float(max(high, low + 1))) for low, high in found)


def scaled(tiles: NDArray[np.uint8], levels: Levels) -> NDArray[np.float32]:
    """Return *tiles* (..., 3) as float32, black 0 and white 1."""
    black, white = np.array(levels, np.float32).T
    values: NDArray[np.float32] = (tiles.astype(np.float32) - black) / (white - black)
    return values
