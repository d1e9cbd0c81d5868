"""Immunohistochemistry from H&E: an annotated picture repainted with haematoxylin and DAB, some of its nuclei brown."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.train.augment import HED, densities, painted

BLUE = np.array([0.80, 0.54, 0.25], np.float32)
"""Haematoxylin as it looks without eosin, at its bluest; pictures lie between this and H&E's."""
NUCLEAR = 0.7
"""Share of pictures whose marker is nuclear; in the others it lies in a ring around the nucleus."""
RING_PX = 4
"""Largest width of that ring."""


def immunostained(image: NDArray[np.uint8], labels: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return *image* as if stained for a marker that a random share of its nuclei carry.

    Eosin fades or goes. Each positive nucleus takes up DAB of a strength of its own, with its own texture, and keeps
    some haematoxylin; or a ring around it does. A faint brown lies over everything.

    Parameters
    ----------
    image : uint8 (H, W, 3)
        H&E.
    labels : int32 (H, W)
        Nuclei 1..n; other pixels 0 or below.
    """
    stains = np.maximum(densities(image), 0)
    blue, pink = stains[..., 0] * rng.uniform(0.6, 1.2), stains[..., 1] * rng.uniform(0, 0.35) * (rng.random() < 0.7)
    texture = 0.5 + 0.5 * stains[..., 0] / max(0.05, float(np.percentile(stains[..., 0], 95)))
    nuclear = bool(rng.random() < NUCLEAR)
    where = _marked(labels, nuclear, rng)
    brown = cv2.GaussianBlur(where, (0, 0), rng.uniform(0.5, 1.0)) * np.clip(texture, 0.3, 1.5)
    if nuclear:
        blue = blue * (1 - where.clip(0, 1) * rng.uniform(0, 0.8))
    brown = brown + rng.uniform(0, 0.12) * (rng.random() < 0.6) * np.clip(texture, 0, 1)
    vectors = HED.copy()
    vectors[0] += rng.uniform(0, 1) * (BLUE - HED[0])
    return painted(np.stack((blue, pink, brown), -1), vectors)


def _marked(labels: NDArray[np.int32], nuclear: bool, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return how strongly each pixel is marked, float32 (H, W): by nucleus, or in a ring around it."""
    count = int(labels.max(initial=0))
    strength = rng.uniform(0.3, 2.0) * rng.uniform(0.4, 1.6, count + 1) * (rng.random(count + 1) < rng.uniform(0, 1))
    strength[0] = 0
    own = strength[np.maximum(labels, 0)].astype(np.float32)
    if nuclear:
        return own
    side = 2 * int(rng.integers(1, RING_PX + 1)) + 1
    grown = cv2.dilate(own, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return np.asarray(grown * (labels <= 0), np.float32)
