"""Stain normalisation: the colours of a slide brought to those that a model was trained on (Reinhard et al. 2001)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Triple = tuple[float, float, float]
Change = tuple[tuple[float, ...], ...]
"""(factor, offset) of each Lab channel; () leaves pixels as they are."""

GLASS = 220
"""A pixel whose every channel is over this shows glass, and has no say in a slide's colours."""
FEWEST_PIXELS = 16
"""A tile of which fewer pixels show tissue is glass: less than the smallest nucleus has (4 µm² at 0.5 µm/px)."""
LEAST_SHARE = 0.01
"""With less tissue than this share of what was looked at, colours stay as they are."""
SAMPLE = 64
"""The colours of a slide are those of so many tiles, spread evenly over the tissue."""
_CIE_SCALE = np.array([100 / 255, 1.0, 1.0])
"""From OpenCV's 8-bit Lab to CIE units."""
LARGEST_STRETCH = 2.0
"""No spread is stretched or squeezed by more than this, lest noise become tissue."""

FAR_MEAN = 30.0
"""Distance of mean colours (CIE76) from which normalising pays; see ``docs/decisions/plausible-results.md``."""
FAR_CONTRAST = 0.6
"""Share of the training images' spread of lightness below which normalising pays; see the same page."""


@dataclass(frozen=True)
class Colours:
    """Mean and standard deviation of tissue pixels in OpenCV's 8-bit CIE Lab."""

    mean: Triple
    spread: Triple

    def change_to(self, target: Colours) -> tuple[Triple, Triple]:
        """Return (factor, offset) of each Lab channel, which give pixels of these colours those of *target*."""
        own, wanted = np.array(self.spread), np.array(target.spread)
        factor = np.clip(wanted / np.maximum(own, 1e-3), 1 / LARGEST_STRETCH, LARGEST_STRETCH)
        return _triple(factor), _triple(target.mean - factor * self.mean)

    def distance_to(self, target: Colours) -> float:
        """Return how far these colours are from *target*; over 1, normalising pays.

        The larger of two: how far the mean colours lie apart, and how much contrast of lightness is lost.
        """
        shift = (np.array(self.mean) - target.mean) * _CIE_SCALE
        contrast = max(self.spread[0], 1e-3) / max(target.spread[0], 1e-3)
        return float(max(np.linalg.norm(shift) / FAR_MEAN, np.log(contrast) / np.log(FAR_CONTRAST)))


def colours_of(pictures: Iterable[Pixels]) -> Colours | None:
    """Return the colours of the tissue in RGB *pictures*, each uint8 (h, w, 3); None when there is hardly any."""
    seen, counts = 0, np.zeros((3, 256))
    for picture in pictures:
        seen += picture.shape[0] * picture.shape[1]
        lab, tissue = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB), _tissue(picture)
        counts += [cv2.calcHist([lab], [c], tissue, [256], [0, 256]).ravel() for c in range(3)]
    count = counts[0].sum()
    if count < max(1, LEAST_SHARE * seen):
        return None
    values = np.arange(256)
    mean = counts @ values / count
    spread = np.sqrt(np.maximum(counts @ values**2 / count - mean**2, 0))
    return Colours(_triple(mean), _triple(spread))


def _tissue(picture: Pixels) -> NDArray[np.uint8]:
    """Return 255 where *picture* shows tissue, 0 where glass, uint8 (h, w)."""
    least = cv2.min(cv2.min(picture[..., 0], picture[..., 1]), picture[..., 2])
    return np.asarray(cv2.threshold(least, GLASS, 255, cv2.THRESH_BINARY_INV)[1], np.uint8)


def is_glass(picture: Pixels) -> bool:
    """Whether an RGB *picture*, uint8 (h, w, 3), shows hardly anything but glass."""
    return cv2.countNonZero(_tissue(picture)) < FEWEST_PIXELS


def sampled(count: int) -> NDArray[np.int64]:
    """Return which of *count* tiles tell the colours of all: at most :data:`SAMPLE`, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).round().astype(np.int64))


def change_of(pictures: Iterable[Pixels], target: Colours) -> Change:
    """Return the change that gives RGB *pictures* the *target* colours; () when they show hardly any tissue."""
    own = colours_of(pictures)
    return () if own is None else own.change_to(target)


def average(each: Iterable[tuple[Colours | None, float]]) -> Colours | None:
    """Return the mean of (colours, weight); None of none."""
    known = [(c, weight) for c, weight in each if c is not None]
    if not known:
        return None
    weights = [weight for _, weight in known]
    means, spreads = (np.average([getattr(c, k) for c, _ in known], 0, weights) for k in ("mean", "spread"))
    return Colours(_triple(means), _triple(spreads))


def normalise(pixels: Pixels, change: Change) -> Pixels:
    """Return RGB *pixels*, uint8 (..., h, w, 3), under a change (factor, offset) of Lab (:meth:`Colours.change_to`)."""
    if not change:
        return pixels
    factor, offset = np.array(change)
    table = np.clip(np.rint(np.arange(256)[:, None] * factor + offset), 0, 255).astype(np.uint8)[None]
    flat = pixels.reshape(-1, *pixels.shape[-2:])
    lab = cv2.LUT(cv2.cvtColor(flat, cv2.COLOR_RGB2LAB), table)
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8).reshape(pixels.shape)


def _triple(values: NDArray[np.float64]) -> Triple:
    a, b, c = (round(float(v), 4) for v in values)
    return a, b, c
