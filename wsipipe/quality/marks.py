"""Grey marks on the overview that are no tissue: rims of air bubbles, and dust.

What lies on the cover slip, or bends the light, darkens all colours alike, whatever is below; stains do not.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.quality.light import Floats, Mask
from wsipipe.quality.shapes import disc

DARKER = 0.1
"""Optical density by which a mark is darker, in every colour, than what is around it."""
UNEVEN = 0.35
"""Most by which the colours may differ, as a share of the one that is darkened most."""
GREY, DARK = 0.25, 0.25
"""On tissue, dust differs in colour by no more than this share of its density, and is darker by this than around it."""
MARK_UM = 80.0
"""Nothing wider is a rim or a speck of dust."""
LARGEST_DUST_UM2 = 6000.0
SMALLEST_BUBBLE_UM = 40.0
"""Radius."""
LEAST_ROUND = 0.6
"""Share of a circle along which the rim of a bubble has to be seen."""
OFF_CIRCLE = 0.12
"""Most by which a rim may leave its circle, as a share of the radius."""


def grey_marks(od: Floats, um_per_px: float, tissue: Mask) -> tuple[Mask, Mask]:
    """Return where something narrow darkens all colours alike, and where it is so grey and dark as dust is.

    Parameters
    ----------
    od : float32 (h, w, 3)
        Optical density of the overview, not smoothed.
    um_per_px : float
    tissue : bool (h, w)
        There dust has to be darker, and grey by itself: dense nuclei are nearly grey beside what is around them.
    """
    kernel = disc(max(1, round(MARK_UM / 2 / um_per_px)))
    darker = np.stack([cv2.morphologyEx(np.ascontiguousarray(od[..., c]), cv2.MORPH_TOPHAT, kernel) for c in range(3)])
    low, high = darker.min(axis=0), darker.max(axis=0)
    marks = (low > DARKER) & (high - low < UNEVEN * high)
    grey = od.max(axis=2) - od.min(axis=2) < GREY * od.max(axis=2)
    return marks, marks & (~tissue | (grey & (low > DARK)))


def bubble_mask(rims: Mask, um_per_px: float) -> Mask:
    """Return the insides of bubbles whose rim is among the marks *rims*, with the rim: bool (h, w)."""
    joined = cv2.morphologyEx(rims.astype(np.uint8), cv2.MORPH_CLOSE, disc(2))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    bubbles, smallest = np.zeros(rims.shape, np.uint8), SMALLEST_BUBBLE_UM / um_per_px
    for k in range(1, count):
        x, y, w, h, _ = stats[k].tolist()
        circle = _circle(labels[y : y + h, x : x + w] == k) if max(w, h) >= 2 * smallest else None
        if circle is not None and circle[2] >= smallest:
            cv2.circle(bubbles, (round(x + circle[0]), round(y + circle[1])), round(circle[2] + 1), 1, -1)
    return bubbles.astype(bool)


def dust_mask(specks: Mask, um_per_px: float) -> Mask:
    """Return the *specks* that are small enough for dust: bool (h, w)."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(specks.astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] <= LARGEST_DUST_UM2 / um_per_px**2
    small[0] = False
    return np.asarray(small[labels], dtype=bool)


def _circle(rim: Mask) -> tuple[float, float, float] | None:
    """Return middle and radius of the circle that *rim* follows, None when it follows none."""
    y, x = (a.astype(np.float64) for a in np.nonzero(rim))
    if len(x) < 12:
        return None
    design: NDArray[np.float64] = np.column_stack([x, y, np.ones(len(x))])
    a, b, c = np.linalg.lstsq(design, x**2 + y**2, rcond=None)[0]
    radius = float(np.sqrt(max(0.0, c + a * a / 4 + b * b / 4)))
    away = np.hypot(x - a / 2, y - b / 2)
    if radius < 1 or np.sqrt(np.mean((away - radius) ** 2)) > OFF_CIRCLE * radius:
        return None
    angle = np.floor((np.arctan2(y - b / 2, x - a / 2) + np.pi) / (2 * np.pi) * 36).astype(int)
    seen = len(np.unique(np.clip(angle, 0, 35))) / 36
    return (float(a / 2), float(b / 2), radius) if seen >= LEAST_ROUND else None
