"""Tissue, ink and glass told apart by the light that they absorb.

Light absorbed (optical density, OD) tells tissue from glass: tissue absorbs, and not all colours alike. Grey is glass,
shadow or dust; what absorbs red more than green is blue or green ink, and so on.
"""

from __future__ import annotations

import cv2
import numpy as np

from wsipipe.quality.light import Floats, Mask, Pixels, optical_density
from wsipipe.quality.shapes import drop_small, grow

THRESHOLD = 0.03
"""Tissue signal (OD) above which a pixel is tissue. As OD counts from the slide's own glass, no histogram has to be
split, and an empty slide has no tissue: glass, smoothed over 8 µm, stays under 0.01, the palest H&E is at 0.04."""
GREY_WEIGHT = 0.35
"""Weight of mean OD beside its spread over the colours: pale grey tissue counts, grey glass does not."""
SMOOTHING_UM = 8.0
SMALLEST_INK_UM2 = 10_000.0
DENSE, COLD = 0.6, 0.75
"""Ink over tissue has at least this mean optical density, and absorbs red at least by this share of green."""


def signal_and_ink(
    smooth: Pixels, glass: Floats, um_per_px: float, smallest_ink_um2: float = SMALLEST_INK_UM2
) -> tuple[Floats, Mask]:
    """Return how much each pixel looks like tissue (OD units), float32 (h, w), and which are ink, bool (h, w)."""
    signal, sure, likely = signal_of(smooth, glass)
    return signal, whole_ink(sure, likely, um_per_px, smallest_ink_um2)


def signal_of(smooth: Pixels, glass: Floats) -> tuple[Floats, Mask, Mask]:
    """Return how much each pixel looks like tissue, which are surely pen ink, and which may be."""
    od = optical_density(smooth, glass)
    red, green, blue = od[..., 0], od[..., 1], od[..., 2]
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    mean = (red + green + blue) / np.float32(3)
    signal = np.where(spread > 0.012 + 0.05 * mean, spread + GREY_WEIGHT * mean, np.float32(0))
    return signal, *_ink(od, spread, mean)


def whole_ink(sure: Mask, likely: Mask, um_per_px: float, smallest_um2: float = SMALLEST_INK_UM2) -> Mask:
    """Return the ink: what is surely ink over a large enough area, with its edges."""
    if not sure.any():
        return sure
    sure = drop_small(sure, smallest_um2 / um_per_px**2)
    if not sure.any():
        return sure
    edge = max(1, round(3 * SMOOTHING_UM / um_per_px))
    return grow(sure, max(1, edge // 3)) | (grow(sure, 2 * edge) & likely)


def _ink(od: Floats, spread: Floats, mean: Floats) -> tuple[Mask, Mask]:
    """Return which pixels are surely pen ink and which may be, by colour: blue or green, red, black."""
    red, green, blue = od[..., 0], od[..., 1], od[..., 2]
    cold = (red > 1.2 * green) & (spread > 0.2)
    warm = (red < 0.12 * green) & (((green > 0.7) & (blue > 0.85 * green)) | (green > 1.1))
    black = (mean > 0.6) & (spread < 0.15 * mean)
    maybe = ((red > 1.05 * green) & (spread > 0.03)) | ((red < 0.15 * green) & (blue > 0.8 * green) & (green > 0.1))
    return cold | warm | black, maybe | ((mean > 0.15) & (spread < 0.2 * mean))


def over_tissue(ink: Mask, od: Floats, um_per_px: float) -> Mask:
    """Return the *ink* with what of it lies over tissue, bool (h, w): dense, and as blue or black as no large area is.

    There the colours of both add up, and only its connection with ink on glass tells that it is ink.
    """
    if not ink.any():
        return ink
    mean = od.mean(axis=2)
    dense = (mean > DENSE) & (od[..., 0] > COLD * od[..., 1])
    near = grow(ink, max(1, round(3 * SMOOTHING_UM / um_per_px)))
    _, labels = cv2.connectedComponents((dense | near).astype(np.uint8), connectivity=8)
    touching = np.unique(labels[ink])
    return np.asarray(ink | (dense & np.isin(labels, touching[touching > 0])), dtype=bool)
