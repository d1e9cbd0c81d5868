"""What heads learn: classes and directional distances from an instance map."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.models.heads import DIRECTIONS


def class_map(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return 0 background, 1 interior, 2 boundary between touching nuclei, uint8 (H, W).

    A pixel is boundary when its 3x3 neighbourhood holds two different nuclei (for nuclei), or when it is a gap of one
    pixel between two nuclei.
    """
    highest = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8))
    lowest = -cv2.dilate(np.where(labels > 0, -labels, -1e9).astype(np.float32), np.ones((3, 3), np.uint8))
    boundary = (highest > 0) & (lowest < 1e9) & (highest != lowest)
    return np.where(boundary, 2, labels > 0).astype(np.uint8)


def directional_maps(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the four directional distances of each pixel to its nucleus's centroid, float32 (4, H, W).

    Along each direction of :data:`DIRECTIONS` the value runs from -1 at the nucleus's one end over 0 at the centroid
    to 1 at the other; 0 outside (CISCA).
    """
    ys, xs = np.nonzero(labels)
    ids = labels[ys, xs]
    n = int(ids.max(initial=0)) + 1
    count = np.maximum(np.bincount(ids, minlength=n), 1)
    out = np.zeros((len(DIRECTIONS), *labels.shape), np.float32)
    for k, (ux, uy) in enumerate(DIRECTIONS):
        along = xs * ux + ys * uy
        along = along - (np.bincount(ids, along, n) / count)[ids]
        reach = np.full((2, n), 0.5)
        np.maximum.at(reach[0], ids, -along)
        np.maximum.at(reach[1], ids, along)
        out[k, ys, xs] = along / np.where(along < 0, reach[0][ids], reach[1][ids])
    return out
