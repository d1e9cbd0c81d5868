"""The quality map of a slide: what is wrong with it, place by place, at about 8 µm/px.

It is made of the slide itself, before any search for tissue (which would leave out blurred and inked parts), and
nothing is dropped on account of it unless that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.errors import SettingsError
from wsipipe.quality.blur import blur_um, detail
from wsipipe.quality.focus import COARSEST_MPP, FOCUS_MPP
from wsipipe.quality.folds import fold_mask
from wsipipe.quality.ink import SMOOTHING_UM, THRESHOLD, over_tissue, signal_and_ink
from wsipipe.quality.light import Floats, Mask, Pixels, glass_colour, optical_density
from wsipipe.quality.marks import bubble_mask, dust_mask, grey_marks
from wsipipe.quality.shapes import drop_small, outline
from wsipipe.slide.overview import Gaps, overview, read_scaled
from wsipipe.slide.protocol import Slide
from wsipipe.units import Pair

MAP_MPP = 8.0
BLOCK = 64
"""Pixels of the map that are looked at closely at a time, on either side."""
MARGIN = 10
"""Pixels more on each side: more than the filters reach."""
MOST_BLUR_UM = 0.9
"""Blur (sigma) from which tissue is out of focus (a ratio of 0.22). Of places in sharp fields of four public sets one
in a thousand has a ratio under 0.35; blurred by 1.5 µm, with a scanner's noise, half are at 0.15, 95 % under 0.22."""
SMALLEST_UM2 = {"out of focus": 2_500.0, "fold": 2_000.0}
"""Smaller areas are not told."""


class Quality(IntEnum):
    """What a place of the slide shows."""

    FINE = 0
    GLASS = 1
    OUT_OF_FOCUS = 2
    PEN = 3
    FOLD = 4
    BUBBLE = 5
    DUST = 6

    @property
    def label(self) -> str:
        """Its name in words: "out of focus"."""
        return self.name.lower().replace("_", " ")


FAULTS = (Quality.OUT_OF_FOCUS, Quality.PEN, Quality.FOLD, Quality.BUBBLE, Quality.DUST)
"""What is wrong with a place, the rarer ones on top where several are."""


COLOURS = {
    Quality.OUT_OF_FOCUS: (40, 80, 255),
    Quality.PEN: (0, 170, 80),
    Quality.FOLD: (255, 130, 0),
    Quality.BUBBLE: (0, 190, 220),
    Quality.DUST: (90, 90, 90),
}
"""Of faults, in pictures and in QuPath: red, green, blue."""


@dataclass(frozen=True)
class QualityMap:
    """What is wrong with a slide, place by place.

    Attributes
    ----------
    classes : uint8 (h, w)
        Values of :class:`Quality`.
    blur : float32 (h, w)
        Blur of tissue in µm (sigma); NaN where it is not judged.
    scale : (float, float)
        Base px per px of the map.
    mpp : float
        µm per px of the map.
    warnings : tuple of str
    about : mapping
        What it was made of, where that is known; see :mod:`wsipipe.quality.kept`.
    """

    classes: NDArray[np.uint8]
    blur: Floats
    scale: Pair
    mpp: float
    warnings: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def area_mm2(self, kind: Quality) -> float:
        """Return the area of a kind of places."""
        return float(np.count_nonzero(self.classes == kind)) * self.mpp**2 * 1e-6

    def areas(self, kind: Quality) -> list[shapely.Polygon]:
        """Return the areas of a kind as polygons in base px, from top to bottom."""
        doubled = np.kron(self.classes == kind, np.ones((2, 2), bool))  # a single px has no outline
        shape = shapely.transform(outline(doubled, 0.0), lambda xy: xy * np.array(self.scale) / 2)
        parts = [p for p in shapely.get_parts(shape) if isinstance(p, shapely.Polygon) and p.area > 0]
        return sorted(parts, key=lambda p: (p.bounds[1], p.bounds[0]))

    def at(self, xy_base: NDArray[np.float64]) -> tuple[NDArray[np.uint8], Floats]:
        """Return class and blur in µm at each of the points (n, 2), which may lie on the edge of the slide."""
        column, row = np.floor(xy_base / np.array(self.scale)).astype(np.int64).T
        height, width = self.classes.shape
        place = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
        return self.classes[place], self.blur[place]


def faults_named(text: str, option: str) -> tuple[Quality, ...]:
    """Return the faults in a list such as ``pen,out-of-focus``; ``all`` is every one.

    Raises
    ------
    SettingsError
        When one is none of them.
    """
    known = {kind.label.replace(" ", "-"): kind for kind in FAULTS}
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in known and name != "all"]
    if wrong:
        raise SettingsError(f"{option} names {wrong[0]!r}; expected some of {', '.join(known)}, or all")
    return FAULTS if "all" in names else tuple(known[name] for name in dict.fromkeys(names))


def quality_map(slide: Slide, base_mpp: Pair, progress: Callable[[float], None] = lambda share: None) -> QualityMap:
    """Return the quality map of *slide*. All but empty glass is read at 0.5 µm/px.

    Parameters
    ----------
    slide : Slide
    base_mpp : (float, float)
    progress : callable, optional
        Told the share that is done.
    """
    rgb, scale, gaps = overview(slide, max(*base_mpp, MAP_MPP))
    um = math.sqrt(scale[0] * base_mpp[0] * scale[1] * base_mpp[1])
    glass = glass_colour(rgb, slide.info.background)
    od = optical_density(rgb, glass)
    sigma = max(1.0, SMOOTHING_UM / 2 / um)
    smooth = np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.uint8)
    signal, ink = signal_and_ink(smooth, glass, um)
    ink = over_tissue(ink, optical_density(smooth, glass), um)
    tissue: Mask = (signal >= THRESHOLD) & ~ink
    rims, specks = grey_marks(od, um, tissue)
    bubbles = bubble_mask(rims & ~ink, um)
    dust = dust_mask(specks & ~ink & ~bubbles, um)
    blur, folds, warnings = _closely(
        slide, base_mpp, scale, um, tissue | bubbles, glass, _density(od, tissue), gaps, progress
    )
    classes = np.where(tissue, Quality.FINE, Quality.GLASS).astype(np.uint8)
    smallest = {name: area / um**2 for name, area in SMALLEST_UM2.items()}
    blurred: Mask = (blur >= MOST_BLUR_UM) & tissue
    classes[drop_small(blurred, smallest["out of focus"])] = Quality.OUT_OF_FOCUS
    classes[drop_small(folds & tissue, smallest["fold"])] = Quality.FOLD
    classes[bubbles] = Quality.BUBBLE
    classes[dust] = Quality.DUST
    classes[ink] = Quality.PEN
    return QualityMap(classes, blur, scale, um, (*warnings, *gaps.told(base_mpp, "glass")))


def _density(od: Floats, tissue: Mask) -> float:
    """Return the median optical density of the tissue."""
    return float(np.median(od.mean(axis=2)[tissue])) if tissue.any() else 0.0


def _closely(
    slide: Slide, base_mpp: Pair, scale: Pair, um: float, looked_at: Mask, glass: Floats, density: float,
    gaps: Gaps, progress: Callable[[float], None],
) -> tuple[Floats, Mask, tuple[str, ...]]:  # fmt: skip
    """Return blur in µm and folds on the map, from pixels of about 0.5 µm; *gaps* is told what cannot be read."""
    blur, folds = np.full(looked_at.shape, np.nan, np.float32), np.zeros(looked_at.shape, bool)
    per = max(1, min(round(um / FOCUS_MPP), math.floor(um / max(base_mpp) + 0.01)))
    mpp = um / per
    judged = mpp <= COARSEST_MPP
    warnings = () if judged else (f"the slide has {max(base_mpp):.3g} µm/px: too coarse to judge its focus",)
    blocks = list(_blocks(looked_at))
    for n, (y, x) in enumerate(blocks):
        pixels = _read(slide, scale, x - MARGIN, y - MARGIN, BLOCK + 2 * MARGIN, per, gaps)
        inner = slice(MARGIN, MARGIN + BLOCK), slice(MARGIN, MARGIN + BLOCK)
        place = slice(y, y + BLOCK), slice(x, x + BLOCK)
        room = blur[place].shape
        folds[place] = _folded(pixels, um, per, glass, density)[inner][: room[0], : room[1]]
        if judged:
            found = blur_um(*detail(pixels, mpp, per), um)
            blur[place] = found[inner][: room[0], : room[1]]
        progress((n + 1) / len(blocks))
    return blur, folds, warnings


def _blocks(looked_at: Mask) -> Iterator[tuple[int, int]]:
    """Yield row and column of the blocks that show more than glass."""
    for y in range(0, looked_at.shape[0], BLOCK):
        for x in range(0, looked_at.shape[1], BLOCK):
            if looked_at[y : y + BLOCK, x : x + BLOCK].any():
                yield y, x


def _read(slide: Slide, scale: Pair, x: int, y: int, side: int, per: int, gaps: Gaps) -> Pixels:
    """Return a square of the map, from (x, y) on, as a picture with *per* px for each px of the map."""
    width, height = (math.ceil(n / s - 1e-6) for n, s in zip(slide.info.size, scale))
    x0, y0, x1, y1 = max(0, x), max(0, y), min(width, x + side), min(height, y + side)
    box = round(x0 * scale[0]), round(y0 * scale[1]), round(x1 * scale[0]), round(y1 * scale[1])
    fine = scale[0] / per, scale[1] / per
    inside = read_scaled(slide, box, fine, ((x1 - x0) * per, (y1 - y0) * per), gaps)
    around = [(n * per, m * per) for n, m in ((y0 - y, y + side - y1), (x0 - x, x + side - x1))]
    return np.pad(inside, (*around, (0, 0)), mode="symmetric")  # a hard edge there would pass for sharp


def _folded(pixels: Pixels, um: float, per: int, glass: Floats, density: float) -> Mask:
    """Return where the picture of a square of the map shows folds, px by px of the map."""
    side = pixels.shape[0] // per
    fine = max(1, min(4, per))
    small = np.asarray(cv2.resize(pixels, (side * fine, side * fine), interpolation=cv2.INTER_AREA), np.uint8)
    found = fold_mask(small, um / fine, glass, density).astype(np.float32)
    return np.asarray(cv2.resize(found, (side, side), interpolation=cv2.INTER_AREA) > 0.5, dtype=bool)
