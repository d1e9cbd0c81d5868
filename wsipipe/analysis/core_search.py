"""Discs in a mask of tissue: how large the cores of a microarray are, and where there may be one.

A disc template of diameter *d* answers with the share of tissue inside it minus the share in a ring around it: 1 on a
whole core of that size that stands alone, whatever is inside, about a half on half a core, 0 in plain tissue.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

SMALLEST_UM, LARGEST_UM = 250.0, 4500.0
"""Diameters of cores that are looked for: those sold are 0.6 to 3 mm, and shrink or spread."""
STEP = 1.07
"""Ratio of a diameter that is tried to the next."""
RING = (1.06, 1.36)
"""Where the ring around a disc begins and ends, in diameters."""
STRONG = 0.5
"""Answer above which something is a core beyond doubt: half of one gives less."""
WEAK = 0.15
"""Answer above which a place may hold a core, if the grid says so too."""


class Candidates(NamedTuple):
    """Places that look like a core: middles (n, 2) in px of the mask, and how strongly each answers (n,)."""

    xy: NDArray[np.float64]
    answer: NDArray[np.float64]


def core_diameter(mask: Mask, um_per_px: float) -> float | None:
    """Return the diameter in µm that most of the tissue in *mask* has in common, None where there is no disc at all.

    Parameters
    ----------
    mask : bool (h, w)
        Tissue, holes filled.
    um_per_px : float
    """
    coarse = max(um_per_px, SMALLEST_UM / 10)
    small = shrunk(mask, um_per_px, coarse)
    longest = min(LARGEST_UM, 1.3 * max(small.shape) * coarse)
    sizes = np.geomspace(SMALLEST_UM, longest, max(2, round(np.log(longest / SMALLEST_UM) / np.log(STEP)) + 1))
    best, which = np.full(small.shape, -1, np.float32), np.zeros(small.shape, np.int16)
    for k, size in enumerate(sizes):
        answer = disc_answer(small, size / coarse)
        better = answer > best
        best[better], which[better] = answer[better], k
    found = _peaks(best, SMALLEST_UM / coarse, STRONG)
    kinds = which[found[:, 1], found[:, 0]]
    peak, size = best[found[:, 1], found[:, 0]], sizes[kinds]
    alone = _largest_first((found * coarse).astype(np.float64), size, peak)
    if not len(alone):
        return None
    votes = np.bincount(kinds[alone], peak[alone] * size[alone] ** 2, len(sizes))
    mode = int(np.convolve(votes, [0.5, 1, 0.5], mode="same").argmax())
    return _refined(mask, um_per_px, float(sizes[mode]))


def _largest_first(xy: NDArray[np.float64], size: NDArray[np.float64], answer: Floats) -> NDArray[np.intp]:
    """Return which discs stay when those that lie in a larger one, or in one that answers better, go."""
    kept: list[int] = []
    for k in np.argsort(-answer * size).tolist():
        if all(np.hypot(*(xy[k] - xy[j])) > 0.5 * max(size[k], size[j]) for j in kept):
            kept.append(k)
    return np.array(kept, np.intp)


def _refined(mask: Mask, um_per_px: float, size: float) -> float:
    """Return the median diameter, by area, of what answers well to discs of about *size* µm."""
    scale = max(um_per_px, size / 60)
    small = shrunk(mask, um_per_px, scale)
    answers = [disc_answer(small, size * f / scale) for f in (0.9, 1.0, 1.1)]
    best = np.max(answers, axis=0)
    found = _peaks(best, 0.6 * size / scale, STRONG)
    strong = best[found[:, 1], found[:, 0]]
    sure = found[strong >= max(STRONG, float(np.quantile(strong, 0.5)) if len(strong) else 0)]
    areas = [_disc_sum(small, x, y, 0.62 * size / scale) * scale**2 for x, y in sure]
    return 2 * float(np.sqrt(np.median(areas) / np.pi)) if areas else size


def _disc_sum(small: Floats, x: int, y: int, radius: float) -> float:
    """Return the tissue, in px, within *radius* of a place."""
    yy, xx = np.ogrid[: small.shape[0], : small.shape[1]]
    return float(small[(xx - x) ** 2 + (yy - y) ** 2 <= radius**2].sum())


def shrunk(mask: Mask, um_per_px: float, wanted: float) -> Floats:
    """Return the share of tissue at *wanted* µm/px, float32."""
    size = [max(1, round(n * um_per_px / wanted)) for n in mask.shape[::-1]]
    return np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)


def disc_answer(small: Floats, diameter: float) -> Floats:
    """Return the answer of *small* (share of tissue) to a disc of *diameter* px at every place; outside is glass."""
    kernel = _template(diameter)
    pad = kernel.shape[0] // 2
    padded = cv2.copyMakeBorder(small, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.filter2D(padded, cv2.CV_32F, kernel)[pad:-pad, pad:-pad], np.float32)


def _template(diameter: float) -> Floats:
    reach = int(np.ceil(diameter * RING[1] / 2)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    r = np.hypot(x, y)
    disc = np.clip(diameter / 2 - r + 0.5, 0, 1)
    ring = np.clip(diameter * RING[1] / 2 - r + 0.5, 0, 1) - np.clip(diameter * RING[0] / 2 - r + 0.5, 0, 1)
    return np.asarray(disc / disc.sum() - ring / ring.sum(), np.float32)


def _peaks(answer: Floats, distance: float, least: float) -> NDArray[np.int64]:
    """Return the places (n, 2), as x and y, that answer more than everything within *distance* px."""
    radius = max(1, round(distance / 2))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    top = (answer >= cv2.dilate(answer, disc)) & (answer >= least)
    _, _, _, middles = cv2.connectedComponentsWithStats(top.astype(np.uint8), connectivity=8)
    return np.rint(middles[1:]).astype(np.int64).reshape(-1, 2)


def candidates(answer: Floats, diameter: float) -> Candidates:
    """Return the places that may hold a core, from the *answer* to discs of *diameter* px."""
    found = _peaks(answer, 1.2 * diameter, WEAK)
    return Candidates(found.astype(np.float64), answer[found[:, 1], found[:, 0]].astype(np.float64))
