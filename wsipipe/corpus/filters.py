"""Why a patch is not kept: glass, pen, blur, folds. Each is measured on the patch alone, in µm and not in pixels."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from wsipipe.corpus.candidates import Look
from wsipipe.quality.focus import reduced, sharpness
from wsipipe.quality.folds import fold_mask
from wsipipe.quality.ink import SMOOTHING_UM, THRESHOLD, signal_and_ink
from wsipipe.raster import Pixels
from wsipipe.settings import CorpusSettings

COARSE_MPP = 2.0
"""Resolution at which glass, pen and folds are told apart."""
SMALLEST_INK_UM2 = 1500.0
"""Smaller spots of the colour of ink are pigment."""
REASONS = {
    "outside": "outside the tissue",
    "unreadable": "unreadable pixels",
    "background": "too much glass",
    "pen": "pen",
    "blur": "out of focus",
    "folds": "folded tissue",
    "excluded": "in an excluded image",
    "duplicate": "near-duplicate",
    "cap": "beyond the cap of its slide",
}
"""Why patches are dropped, in the order in which it is found out."""


class Measures(NamedTuple):
    """What a patch looks like: shares of its area, and its sharpness in grey levels."""

    background: float
    pen: float
    focus: float
    folds: float


def measure(pixels: Pixels, mpp: float, look: Look) -> Measures:
    """Return the measures of a patch, uint8 (h, w, 3), at *mpp* µm/px."""
    coarse = reduced(pixels, mpp, COARSE_MPP)
    um_per_px = max(mpp, COARSE_MPP)
    smooth = cv2.GaussianBlur(coarse, (0, 0), max(1.0, SMOOTHING_UM / 2 / um_per_px), borderType=cv2.BORDER_REFLECT)
    signal, ink = signal_and_ink(np.asarray(smooth, np.uint8), look.glass, um_per_px, SMALLEST_INK_UM2)
    glass = (signal < THRESHOLD) & ~ink
    focus = sharpness(pixels, mpp, look.mpp)
    return Measures(
        float(glass.mean()),
        float(ink.mean()),
        focus,
        float(fold_mask(coarse, um_per_px, look.glass, look.density).mean()),
    )


def why_not(measures: Measures, settings: CorpusSettings) -> str:
    """Return the key of :data:`REASONS` for which a patch is dropped, empty when it is kept."""
    if measures.background > settings.max_background:
        return "background"
    if measures.pen > settings.max_pen:
        return "pen"
    if measures.focus < settings.min_focus:
        return "blur"
    return "folds" if measures.folds > settings.max_folds else ""
