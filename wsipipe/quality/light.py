"""Light through the slide: the colour of empty glass, and what is absorbed beside it."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

STRIP = 256
"""Rows of the picture that are worked on at a time."""


def glass_colour(rgb: Pixels, fill: tuple[int, int, int]) -> Floats:
    """Return the colour of empty glass, float32 (3,): the commonest smooth, bright, nearly grey colour of the picture.

    Where less than 1 % of the picture is like that (tissue throughout), it is a bright grey.
    """
    counts, seen = np.zeros((2, 256), np.int64), np.zeros(2, np.int64)
    for rows in strips(len(rgb)):
        grey, kinds = _like_glass(rgb, rows, fill)
        for k, kind in enumerate(kinds):
            counts[k] += np.bincount(grey[kind], minlength=256)
            seen[k] += np.count_nonzero(kind)
    pixels = rgb.shape[0] * rgb.shape[1]
    chosen = 0 if seen[0] >= 0.01 * pixels else 1
    if seen[chosen] < 0.01 * pixels:
        return np.full(3, 245, np.float32)
    mode = int(np.convolve(counts[chosen], np.ones(5), mode="same").argmax())
    total = np.zeros(3)
    for rows in strips(len(rgb)):
        grey, kinds = _like_glass(rgb, rows, fill)
        near = kinds[chosen] & (np.abs(grey.astype(np.int16) - mode) <= 2)
        total += cv2.sumElems(cv2.bitwise_and(rgb[rows], rgb[rows], mask=near.view(np.uint8)))[:3]
    return np.asarray(total / counts[chosen][max(0, mode - 2) : mode + 3].sum(), dtype=np.float32)


def strips(height: int) -> Iterator[slice]:
    """Yield the rows of a picture a few at a time: bounded memory."""
    for top in range(0, height, STRIP):
        yield slice(top, min(top + STRIP, height))


def _like_glass(rgb: Pixels, rows: slice, fill: tuple[int, int, int]) -> tuple[Pixels, tuple[Mask, Mask]]:
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
