"""Which focal plane of a stack is the sharpest: by its tissue, with the one measure of focus."""

from __future__ import annotations

from collections.abc import Callable

import shapely

from wsipipe.quality.fields import tissue_sharpness
from wsipipe.quality.focus import FOCUS_MPP
from wsipipe.settings import TissueSettings
from wsipipe.slide.planes import listed
from wsipipe.slide.protocol import Slide
from wsipipe.tissue.regions import find_tissue
from wsipipe.units import Pair

SAME = (FOCUS_MPP, FOCUS_MPP)
"""Taken for the resolution of a slide that states none: only planes of one slide are compared."""


def sharpest_plane(open_at: Callable[[int], Slide]) -> tuple[int, str]:
    """Return the number of the sharpest focal plane of a slide, and a line that tells of the choice.

    Tissue is looked for once, on an overview of the middle plane, and up to twelve fields of it are compared in every
    plane (:func:`~wsipipe.quality.fields.tissue_sharpness`). Of equal planes the first is taken.

    Parameters
    ----------
    open_at : function
        Opens the slide at a plane.
    """
    with open_at(0) as slide:
        names = slide.info.planes
    with open_at(len(names) // 2) as slide:
        mpp, tissue = slide.info.mpp or SAME, _tissue(slide)
    found = []
    for n in range(len(names)):
        with open_at(n) as slide:
            found.append(tissue_sharpness(slide, mpp, tissue))
    best = max(range(len(names)), key=lambda n: found[n])
    values = ", ".join(f"{value:.1f}" for value in found)
    return best, f"focal plane {best} is taken, the sharpest of {listed(names)}; sharpness {values}"


def _tissue(slide: Slide) -> tuple[shapely.Polygon, ...]:
    """Return the tissue, in base pixels; the whole slide where none is found, or no resolution is stated."""
    whole = (shapely.box(0, 0, *slide.info.size),)
    mpp: Pair | None = slide.info.mpp
    return whole if mpp is None else find_tissue(slide, mpp, TissueSettings()).polygons or whole
