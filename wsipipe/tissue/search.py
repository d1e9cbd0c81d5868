"""The search for tissue on a small picture of the slide: from RGB pixels to a mask to outlines."""

from __future__ import annotations

import math

import cv2
import numpy as np

from wsipipe.quality.ink import SMOOTHING_UM, THRESHOLD, signal_of, whole_ink
from wsipipe.quality.light import Floats, Mask, Pixels, glass_colour, strips
from wsipipe.quality.shapes import drop_small, morph
from wsipipe.settings import TissueSettings

CLOSING_UM = 24.0


def tissue_mask(rgb: Pixels, um_per_px: float, settings: TissueSettings, fill: tuple[int, int, int]) -> Mask:
    """Return the tissue pixels of a small picture, bool (h, w): no ink, dust, glass or small holes.

    *fill* is the colour of areas that were never scanned.
    """
    mask, ink = _tissue_and_ink(rgb, glass_colour(rgb, fill), um_per_px)
    reach = max(1, round(CLOSING_UM / 2 / um_per_px))
    mask = morph(mask, cv2.MORPH_CLOSE, reach) & ~ink
    mask = morph(mask, cv2.MORPH_OPEN, max(1, reach // 2))
    px_um2, picture_um2 = um_per_px**2, mask.size * um_per_px**2
    mask = ~drop_small(~mask, settings.min_hole_um2 / px_um2) | mask
    mask &= ~ink
    return drop_small(mask, min(settings.min_tissue_um2, picture_um2 / 10) / px_um2)


def _tissue_and_ink(rgb: Pixels, glass: Floats, um_per_px: float) -> tuple[Mask, Mask]:
    """Return where the smoothed picture shows tissue that is no ink, and ink; memory is a few bytes a pixel."""
    shape, sigma = rgb.shape[:2], max(1.5, SMOOTHING_UM / um_per_px)
    mask, sure, likely = np.empty(shape, bool), np.empty(shape, bool), np.empty(shape, bool)
    margin = math.ceil(4 * sigma) + 1  # more than the filter reaches
    for rows in strips(shape[0]):
        first = max(0, rows.start - margin)
        around = cv2.GaussianBlur(rgb[first : rows.stop + margin], (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        smooth = np.asarray(around[rows.start - first : rows.stop - first], np.uint8)
        signal, sure[rows], likely[rows] = signal_of(smooth, glass)
        mask[rows] = signal >= THRESHOLD
    ink = whole_ink(sure, likely, um_per_px)
    return mask & ~ink, ink
