"""Drawn outlines and masks to an instance map."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsipipe.raster.fill import area, fill

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outline:
    """One nucleus: rings (n, 2) in pixels of the image (holes and further parts are rings too), or its mask.

    Attributes
    ----------
    kind : str
        Its type, "" when not known.
    mask : bool (H, W), optional
        In place of rings.
    """

    rings: Sequence[NDArray[np.float64]]
    kind: str = ""
    mask: NDArray[np.bool_] | None = field(default=None, repr=False)

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return float(self.mask.sum()) if self.mask is not None else area(self.rings)


def paint(outlines: Sequence[Outline], size: tuple[int, int], where: str) -> tuple[NDArray[np.int32], dict[int, str]]:
    """Return the instance map (height, width) of *outlines* and the type of each that has one, by number.

    Where outlines overlap the smaller nucleus wins, so that none is hidden by a larger one. Outlines without area are
    left out, with a warning.

    Parameters
    ----------
    size : (int, int)
        Width and height of the image.
    where : str
        The file, for the warning.
    """
    areas = [outline.area for outline in outlines]
    if empty := sum(value <= 0 for value in areas):
        log.warning("%s: %d outlines enclose nothing and are left out", where, empty)
    order = sorted((i for i, value in enumerate(areas) if value > 0), key=lambda i: -areas[i])
    labels = np.zeros((size[1], size[0]), np.int32)
    for masked, alike in itertools.groupby(order, lambda i: outlines[i].mask is not None):
        numbers = list(alike)
        if not masked:
            fill(labels, [outlines[i].rings for i in numbers], [i + 1 for i in numbers])
            continue
        for i in numbers:
            labels[outlines[i].mask] = i + 1
    typed = any(outline.kind for outline in outlines)
    return labels, {i + 1: outlines[i].kind for i in order} if typed else {}
