"""Objects of one tile as maps, uint8 (K, side, side), which travel and are kept like those of wsipipe's own networks.

The number of the object in two bytes, its probability times 255, and those of its types.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsipipe.cells.kernels import regions
from wsipipe.cells.kernels.objects import keep_largest
from wsipipe.cells.rules import FOREGROUND, TYPE

OBJECT = ("object", "object * 256", FOREGROUND)
"""Names of the first maps of objects."""
MOST_OBJECTS = 65535

Image = NDArray[np.uint8]


def names_of(types: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the maps of objects that have these *types*."""
    return (*OBJECT, *(f"{TYPE}{name}" for name in types))


def is_objects(names: Sequence[str]) -> bool:
    """Whether maps of these *names* are those of objects."""
    return tuple(names[: len(OBJECT)]) == OBJECT


def packed(labels: NDArray[np.integer], probability: NDArray[np.floating], types: NDArray[np.floating]) -> Image:
    """Return the maps of the objects of one tile, uint8 (3 + T, side, side): each in one piece, without holes.

    Parameters
    ----------
    labels : integer (side, side)
        0 is background; objects are 1..n.
    probability : float (n,)
    types : float (n, T)
    """
    count = len(probability)
    padded = np.pad(labels.astype(np.int32), 1)
    keep_largest(padded, count)
    box = regions.boxes(padded, count)
    box[(box[:, 2:] - box[:, :2]).max(axis=1) > labels.shape[0] // 2] = 1  # a frame along the edge would take all
    regions.fill(padded, box)
    whole = padded[1:-1, 1:-1]
    values = np.zeros((count + 1, 1 + types.shape[1]), np.uint8)
    values[1:] = np.round(np.column_stack([probability, types]) * 255)
    values[1:, 0] = np.maximum(values[1:, 0], 1)  # 0 would not be foreground
    planes = [whole & 255, whole >> 8, *np.moveaxis(values[whole], -1, 0)]
    return np.stack(planes).astype(np.uint8)
