"""Near-duplicates: patches that show the same field, recompressed, slightly shifted, mirrored or turned by 90°.

A perceptual hash finds those that may be the same, among all patches so far; a comparison of pixels decides.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.raster import Pixels

SAME = 0.9
"""Correlation of two patches, reduced to 64 x 64 grey pixels, from which on they show the same field. Neighbouring
fields of one slide stay under 0.5."""

Hashes = NDArray[np.uint64]


def orientations(picture: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """Return *picture* in its eight orientations, itself first: turned by 90° each, then mirrored and turned."""
    return [np.rot90(view, turns) for view in (picture, picture[:, ::-1]) for turns in range(4)]


def hashes(pixels: Pixels) -> Hashes:
    """Return the perceptual hash of a patch in its eight orientations, uint64 (8,); the first is its own.

    64 bits say which of the 8 x 8 lowest frequencies (cosine transform of 32 x 32 grey pixels) are above the median.
    """
    small = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    found = np.empty(8, np.uint64)
    for i, view in enumerate(orientations(small)):
        low = cv2.dct(np.ascontiguousarray(view, np.float32))[:8, :8].ravel()
        low[0] = 0  # the mean says nothing of the pattern
        found[i] = np.packbits(low > np.median(low)).view(">u8")[0]
    return found


class SeenPatches:
    """All patches so far, by hash.

    Parameters
    ----------
    bits : int
        Bits in which the hashes of near-duplicates may differ; below 0 nothing is a duplicate.
    pixels : callable
        Returns the pixels of a patch by its number.
    known : sequence of int
        Hashes of the patches that there are already.
    """

    def __init__(self, bits: int, pixels: Callable[[int], Pixels], known: list[int]) -> None:
        self.bits, self._pixels, self._count = bits, pixels, len(known)
        self._hashes = np.zeros(max(1024, 2 * len(known)), np.uint64)
        self._hashes[: len(known)] = known

    def add(self, hash_: int) -> None:
        """Take in the hash of the next patch."""
        if self._count == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        self._hashes[self._count] = hash_
        self._count += 1

    def find(self, variants: Hashes, pixels: Pixels) -> int | None:
        """Return the number of an earlier patch that shows the same field as *pixels*, or None."""
        if self.bits < 0 or not self._count:
            return None
        near = _near(self._hashes[: self._count], variants, self.bits)
        views = [_small(view) for view in orientations(pixels)] if len(near) else []
        for number, orientation in near.tolist():
            if correlation(views[orientation], _small(self._pixels(number))) >= SAME:
                return int(number)
        return None


def correlation(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Return the normalised correlation of two arrays of one shape, 0 when one is flat."""
    x, y = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else 0.0


def _small(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA), np.float32)


@njit(cache=True, nogil=True)
def _near(known: Hashes, variants: Hashes, bits: int) -> NDArray[np.int64]:
    """Return (number, orientation) of the *known* hashes that differ from one of *variants* in at most *bits*."""
    found = [(0, 0) for _ in range(0)]
    for i in range(known.size):
        for v in range(variants.size):
            x = known[i] ^ variants[v]
            x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
            x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
            x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
            if np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56)) <= bits:
                found.append((i, v))
                break
    out = np.empty((len(found), 2), np.int64)
    for k in range(len(found)):
        out[k, 0], out[k, 1] = found[k]
    return out
