"""The search for tissue on a small picture of the slide: from RGB pixels to a mask to outlines.

Light absorbed (optical density, OD) tells tissue from glass: tissue absorbs, and not all colours alike. Grey is glass,
shadow or dust; what absorbs red more than green is blue or green ink, and so on.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsipipe.settings import TissueSettings

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

THRESHOLD = 0.03
"""Tissue signal (OD) above which a pixel is tissue. As OD counts from the slide's own glass, no histogram has to be
split, and an empty slide has no tissue: glass, smoothed over 8 um, stays under 0.01, the palest H&E is at 0.04."""
GREY_WEIGHT = 0.35
"""Weight of mean OD beside its spread over the colours: pale grey tissue counts, grey glass does not."""
SMOOTHING_UM = 8.0
CLOSING_UM = 24.0
SMALLEST_INK_UM2 = 10_000.0


def tissue_mask(rgb: Pixels, um_per_px: float, settings: TissueSettings, fill: tuple[int, int, int]) -> Mask:
    """Return the tissue pixels of a small picture, bool (h, w): no ink, dust, glass or small holes.

    *fill* is the colour of areas that were never scanned.
    """
    smooth = cv2.GaussianBlur(rgb, (0, 0), max(1.5, SMOOTHING_UM / um_per_px), borderType=cv2.BORDER_REPLICATE)
    signal, ink = signal_and_ink(np.asarray(smooth, np.uint8), glass_colour(rgb, fill), um_per_px)
    mask = (signal >= THRESHOLD) & ~ink
    reach = max(1, round(CLOSING_UM / 2 / um_per_px))
    mask = _morph(mask, cv2.MORPH_CLOSE, reach) & ~ink
    mask = _morph(mask, cv2.MORPH_OPEN, max(1, reach // 2))
    px_um2, picture_um2 = um_per_px**2, mask.size * um_per_px**2
    mask = ~_drop_small(~mask, settings.min_hole_um2 / px_um2) | mask
    mask &= ~ink
    return _drop_small(mask, min(settings.min_tissue_um2, picture_um2 / 10) / px_um2)


def glass_colour(rgb: Pixels, fill: tuple[int, int, int]) -> Floats:
    """Return the colour of empty glass, float32 (3,): the commonest smooth, bright, nearly grey colour of the picture.

    Where less than 1 % of the picture is like that (tissue throughout), it is a bright grey.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    rough = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    glass = (rough <= 8) & (spread <= 24) & (grey > 120)
    scanned = glass & ~(rgb == np.array(fill, np.uint8)).all(axis=2)
    chosen = scanned if scanned.sum() >= 0.01 * scanned.size else glass
    if chosen.sum() < 0.01 * chosen.size:
        return np.full(3, 245, np.float32)
    counts = np.bincount(grey[chosen], minlength=256)
    mode = int(np.convolve(counts, np.ones(5), mode="same").argmax())
    near = chosen & (np.abs(grey.astype(np.int16) - mode) <= 2)
    return np.asarray(rgb[near].mean(axis=0), dtype=np.float32)


def optical_density(rgb: Pixels, glass: Floats) -> Floats:
    """Return the optical density of each channel relative to *glass*, float32 (h, w, 3), at least 0."""
    table = np.log10((glass + 1)[None, :] / (np.arange(256, dtype=np.float32) + 1)[:, None])
    table = np.clip(table, 0, None).astype(np.float32)
    return np.stack([table[rgb[..., channel], channel] for channel in range(3)], axis=-1)


def signal_and_ink(smooth: Pixels, glass: Floats, um_per_px: float) -> tuple[Floats, Mask]:
    """Return how much each pixel looks like tissue (OD units), float32 (h, w), and which are ink, bool (h, w)."""
    shape = smooth.shape[:2]
    signal, sure, likely = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
    for top in range(0, shape[0], 256):  # in strips: bounded memory
        rows = slice(top, top + 256)
        od = optical_density(smooth[rows], glass)
        spread, mean = od.max(axis=2) - od.min(axis=2), od.mean(axis=2)
        stained = spread > 0.012 + 0.05 * mean
        signal[rows] = np.where(stained, spread + GREY_WEIGHT * mean, 0)
        sure[rows], likely[rows] = _ink(od, spread, mean)
    sure = _drop_small(sure, SMALLEST_INK_UM2 / um_per_px**2)
    if not sure.any():
        return signal, sure
    edge = max(1, round(3 * SMOOTHING_UM / um_per_px))
    return signal, _grow(sure, max(1, edge // 3)) | (_grow(sure, 2 * edge) & likely)


def _ink(od: Floats, spread: Floats, mean: Floats) -> tuple[Mask, Mask]:
    """Return which pixels are surely pen ink and which may be, by colour: blue or green, red, black."""
    red, green, blue = od[..., 0], od[..., 1], od[..., 2]
    cold = (red > 1.2 * green) & (spread > 0.2)
    warm = (red < 0.12 * green) & (((green > 0.7) & (blue > 0.85 * green)) | (green > 1.1))
    black = (mean > 0.6) & (spread < 0.15 * mean)
    maybe = ((red > 1.05 * green) & (spread > 0.03)) | ((red < 0.15 * green) & (blue > 0.8 * green) & (green > 0.1))
    return cold | warm | black, maybe | ((mean > 0.15) & (spread < 0.2 * mean))


def _disc(radius: int) -> Any:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _morph(mask: Mask, operation: int, radius: int) -> Mask:
    padded = np.pad(mask.astype(np.uint8), radius, mode="edge")
    done = cv2.morphologyEx(padded, operation, _disc(radius))
    return np.asarray(done[radius:-radius, radius:-radius], dtype=bool)


def _grow(mask: Mask, radius: int) -> Mask:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), _disc(radius)), dtype=bool)


def _drop_small(mask: Mask, min_px: float) -> Mask:
    """Return *mask* without the connected components of fewer than *min_px* pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_px
    keep[0] = False
    return np.asarray(keep[labels], dtype=bool)


def outline(mask: Mask, margin_px: float) -> BaseGeometry:
    """Return the outline of *mask* grown by *margin_px*, with rounded corners, in pixels of the mask."""
    rings, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outer: dict[int, tuple[Any, list[Any]]] = {}
    for index, ring in enumerate(rings):
        if len(ring) >= 4:
            points, parent = ring[:, 0] + 0.5, int(tree[0][index][3])
            if parent < 0:
                outer[index] = points, []
            elif parent in outer:
                outer[parent][1].append(points)
    shapes = [shapely.make_valid(shapely.Polygon(shell, holes)) for shell, holes in outer.values()]
    grown = shapely.union_all(shapely.buffer(shapes, margin_px + 1.5))  # 0.5: from pixel centres to edges
    return shapely.simplify(shapely.buffer(grown, -1.0), 0.25)
