"""What heads learn: classes, distances and directional distances from an instance map."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.models.heads import DIRECTIONS

TYPICAL_AREA_PX = 130
"""A nucleus of 6.5 µm at 0.5 µm/px."""
NUCLEUS = 3
"""Class of a nucleus pixel of which nobody says whether it is interior or boundary; see :func:`merged_map`."""


def class_map(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return 0 background, 1 interior, 2 boundary between touching nuclei, uint8 (H, W).

    A pixel is boundary when its 3x3 neighbourhood holds two different nuclei (for nuclei), or when it is a gap of one
    pixel between two nuclei.
    """
    highest = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8))
    lowest = -cv2.dilate(np.where(labels > 0, -labels, -1e9).astype(np.float32), np.ones((3, 3), np.uint8))
    boundary = (highest > 0) & (lowest < 1e9) & (highest != lowest)
    return np.where(boundary, 2, labels > 0).astype(np.uint8)


def merged_map(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return 0 background, 3 nucleus (interior or boundary), uint8 (H, W), where touching nuclei share a number."""
    return np.where(labels > 0, NUCLEUS, 0).astype(np.uint8)


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


def centre_map(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return how far each pixel lies from the rim of its own nucleus, 1 at the deepest one, float32 (H, W).

    0 outside and on pixels that touch another nucleus, so that the map falls between touching nuclei of any size.
    """
    own = labels.astype(np.float32)
    highest = cv2.dilate(own, np.ones((3, 3), np.uint8))
    lowest = -cv2.dilate(np.where(labels > 0, -own, -np.inf), np.ones((3, 3), np.uint8))
    inside = (labels > 0) & (highest == own) & (lowest == own)
    depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5)
    deepest = np.full(int(labels.max(initial=0)) + 1, 1e-6, np.float32)
    np.maximum.at(deepest, labels[inside], depth[inside])
    return np.where(inside, depth / deepest[labels], 0).astype(np.float32)


def whole_weight(labels: NDArray[np.int32], merged: bool = False) -> NDArray[np.float32]:
    """Return how much each pixel counts for maps that need the whole nucleus, float32 (H, W).

    0 where there is no annotation, in nuclei that the crop's edge cuts (their centre is unknown) and in *merged* ones;
    small nuclei count more per pixel, so that they are not drowned by large ones; 1 in the background.
    """
    ids = np.maximum(labels, 0)
    areas = np.bincount(ids.ravel())
    weights = np.clip(TYPICAL_AREA_PX / np.maximum(areas, 1), 0.5, 3).astype(np.float32)
    framed = np.pad(labels < 0, 1, constant_values=True).astype(np.uint8)
    cut = cv2.dilate(framed, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    weights[slice(None) if merged else np.unique(ids[cut])] = 0
    weights[0] = 1
    return np.where(labels < 0, 0, weights[ids]).astype(np.float32)
