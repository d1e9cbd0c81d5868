"""Instances from a network with HoVer-Net's outputs, as its paper describes (Graham et al. 2019, section 3.2).

The network says of each pixel whether it belongs to a nucleus, and how far left or right, above or below that nucleus's
centre it lies (-1 to 1). Where two nuclei touch, these distances jump from 1 to -1: there lie the borders. What is left
without them are the markers of a watershed.

The paper scales the jumps to the largest of the image; here a full jump, from 1 to -1, is 1 in every tile, so that a
nucleus does not depend on what else is in its tile.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
KERNEL = 7
"""Side of the filter that finds jumps, in px."""
JUMP = 0.4
"""Share of a full jump from which a pixel is a border (k of the paper)."""
SMALLEST_MARKER = 10
"""Pixels."""
_CROSS = ndimage.generate_binary_structure(2, 1)


def instances(nucleus: Floats, distances: Floats, threshold: float = 0.5) -> NDArray[np.int32]:
    """Return the label image (h, w) of nuclei.

    Parameters
    ----------
    nucleus : float32 (h, w)
        Probability of a nucleus.
    distances : float32 (2, h, w)
        Horizontal and vertical distance from the nucleus's centre, in [-1, 1].
    threshold : float
        Of *nucleus* (h of the paper).
    """
    mask = nucleus >= threshold
    jumps = np.maximum(_jumps(distances[0], 1, 0), _jumps(distances[1], 0, 1))
    markers, count = ndimage.label(mask & (jumps < JUMP), _CROSS)
    sizes = np.bincount(markers.ravel(), minlength=count + 1)
    markers[(sizes < SMALLEST_MARKER)[markers]] = 0
    alone, found = ndimage.label(mask, _CROSS)  # a nucleus without a marker is one of its own
    without = np.bincount(alone.ravel(), weights=(markers > 0).ravel(), minlength=found + 1) == 0
    markers = np.where(without[alone] & mask, count + alone, markers).astype(np.int32)
    energy = np.where(mask, np.round(jumps * 1000), 65535).astype(np.uint16)
    seeded = np.where(mask, markers, -1).astype(np.int32)
    flooded = ndimage.watershed_ift(energy, seeded, _CROSS)
    return np.where(mask & (flooded > 0), flooded, 0).astype(np.int32)


def _jumps(distance: Floats, dx: int, dy: int) -> Floats:
    """Return how much *distance* falls along an axis, as a share of a full jump, float32 (h, w) in [0, 1]."""
    slope = cv2.getDerivKernels(1, 0, KERNEL)[0].ravel()
    smooth = cv2.getDerivKernels(0, 1, KERNEL)[0].ravel()
    full = 2 * np.abs(slope[: KERNEL // 2]).sum() * smooth.sum()
    x, y = (slope, smooth) if dx else (smooth, slope)
    change = cv2.sepFilter2D(np.ascontiguousarray(distance, np.float32), cv2.CV_32F, x, y)
    return np.asarray(np.clip(-change / full, 0, 1), np.float32)
