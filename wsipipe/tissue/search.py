"""The search for tissue on a small picture of the slide: from RGB pixels to a mask to outlines.

Light absorbed (optical density, OD) tells tissue from glass: tissue absorbs, and not all colours alike. Grey is glass,
shadow or dust; what absorbs red more than green is blue or green ink, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
split, and an empty slide has no tissue: glass, smoothed over 8 µm, stays under 0.01, the palest H&E is at 0.04."""
GREY_WEIGHT = 0.35
"""Weight of mean OD beside its spread over the colours: pale grey tissue counts, grey glass does not."""
SMOOTHING_UM = 8.0
CLOSING_UM = 24.0
SMALLEST_INK_UM2 = 10_000.0
STRIP = 256
"""Rows of the picture that are worked on at a time."""


def tissue_mask(rgb: Pixels, um_per_px: float, settings: TissueSettings, fill: tuple[int, int, int]) -> Mask:
    """Return the tissue pixels of a small picture, bool (h, w): no ink, dust, glass or small holes.

    *fill* is the colour of areas that were never scanned.
    """
    mask, ink = _tissue_and_ink(rgb, glass_colour(rgb, fill), um_per_px)
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
    counts, seen = np.zeros((2, 256), np.int64), np.zeros(2, np.int64)
    for rows in _strips(len(rgb)):
        grey, kinds = _glass(rgb, rows, fill)
        for k, kind in enumerate(kinds):
            counts[k] += np.bincount(grey[kind], minlength=256)
            seen[k] += np.count_nonzero(kind)
    pixels = rgb.shape[0] * rgb.shape[1]
    chosen = 0 if seen[0] >= 0.01 * pixels else 1
    if seen[chosen] < 0.01 * pixels:
        return np.full(3, 245, np.float32)
    mode = int(np.convolve(counts[chosen], np.ones(5), mode="same").argmax())
    total = np.zeros(3)
    for rows in _strips(len(rgb)):
        grey, kinds = _glass(rgb, rows, fill)
        near = kinds[chosen] & (np.abs(grey.astype(np.int16) - mode) <= 2)
        total += cv2.sumElems(cv2.bitwise_and(rgb[rows], rgb[rows], mask=near.view(np.uint8)))[:3]
    return np.asarray(total / counts[chosen][max(0, mode - 2) : mode + 3].sum(), dtype=np.float32)


def _strips(height: int) -> Iterator[slice]:
    """Yield the rows of a picture a few at a time: bounded memory."""
    for top in range(0, height, STRIP):
        yield slice(top, min(top + STRIP, height))


def _glass(rgb: Pixels, rows: slice, fill: tuple[int, int, int]) -> tuple[Pixels, tuple[Mask, Mask]]:
    """Return the brightness of some *rows*, and which pixels are like glass: of what was scanned, and of all."""
    first, last = max(0, rows.start - 1), rows.stop + 1  # a row more on either side
    around = np.asarray(cv2.cvtColor(rgb[first:last], cv2.COLOR_RGB2GRAY), np.uint8)
    inner = slice(rows.start - first, rows.stop - first)
    rough = cv2.morphologyEx(around, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))[inner]
    grey, (red, green, blue) = around[inner], cv2.split(rgb[rows])
    spread = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)
    glass: Mask = (np.asarray(rough) <= 8) & (np.asarray(spread) <= 24) & (grey > 120)
    scanned: Mask = glass & (np.asarray(cv2.inRange(rgb[rows], fill, fill)) == 0)
    return grey, (scanned, glass)


def optical_density(rgb: Pixels, glass: Floats) -> Floats:
    """Return the optical density of each channel relative to *glass*, float32 (h, w, 3), at least 0."""
    table = np.log10((glass + 1)[None, :] / (np.arange(256, dtype=np.float32) + 1)[:, None])
    table = np.clip(table, 0, None).astype(np.float32)
    return np.asarray(cv2.LUT(np.ascontiguousarray(rgb), table[None]), np.float32)


def signal_and_ink(
    smooth: Pixels, glass: Floats, um_per_px: float, smallest_ink_um2: float = SMALLEST_INK_UM2
) -> tuple[Floats, Mask]:
    """Return how much each pixel looks like tissue (OD units), float32 (h, w), and which are ink, bool (h, w)."""
    signal, sure, likely = _signal(smooth, glass)
    return signal, _whole_ink(sure, likely, um_per_px, smallest_ink_um2)


def _tissue_and_ink(rgb: Pixels, glass: Floats, um_per_px: float) -> tuple[Mask, Mask]:
    """Return where the smoothed picture shows tissue that is no ink, and ink; memory is a few bytes a pixel."""
    shape, sigma = rgb.shape[:2], max(1.5, SMOOTHING_UM / um_per_px)
    mask, sure, likely = np.empty(shape, bool), np.empty(shape, bool), np.empty(shape, bool)
    margin = math.ceil(4 * sigma) + 1  # more than the filter reaches
    for rows in _strips(shape[0]):
        first = max(0, rows.start - margin)
        around = cv2.GaussianBlur(rgb[first : rows.stop + margin], (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        smooth = np.asarray(around[rows.start - first : rows.stop - first], np.uint8)
        signal, sure[rows], likely[rows] = _signal(smooth, glass)
        mask[rows] = signal >= THRESHOLD
    ink = _whole_ink(sure, likely, um_per_px)
    return mask & ~ink, ink


def _signal(smooth: Pixels, glass: Floats) -> tuple[Floats, Mask, Mask]:
    """Return how much each pixel looks like tissue, which are surely pen ink, and which may be."""
    od = optical_density(smooth, glass)
    red, green, blue = od[..., 0], od[..., 1], od[..., 2]
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    mean = (red + green + blue) / np.float32(3)
    signal = np.where(spread > 0.012 + 0.05 * mean, spread + GREY_WEIGHT * mean, np.float32(0))
    return signal, *_ink(od, spread, mean)


def _whole_ink(sure: Mask, likely: Mask, um_per_px: float, smallest_um2: float = SMALLEST_INK_UM2) -> Mask:
    """Return the ink: what is surely ink over a large enough area, with its edges."""
    if not sure.any():
        return sure
    sure = _drop_small(sure, smallest_um2 / um_per_px**2)
    if not sure.any():
        return sure
    edge = max(1, round(3 * SMOOTHING_UM / um_per_px))
    return _grow(sure, max(1, edge // 3)) | (_grow(sure, 2 * edge) & likely)


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
    return np.asarray(cv2.dilate(mask.view(np.uint8), _disc(radius)), dtype=bool)


def _drop_small(mask: Mask, min_px: float) -> Mask:
    """Return *mask* without the connected components of fewer than *min_px* pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
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
