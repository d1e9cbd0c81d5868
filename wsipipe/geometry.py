"""The only place where coordinate frames convert. Frames are defined in :mod:`wsipipe.units`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from wsipipe.errors import SettingsError
from wsipipe.units import Box, Pair, Size

LEVEL_TOLERANCE = 0.02
"""A pyramid level whose mpp is within this share of the working mpp is used as it is, with its true mpp."""
LONGEST, LARGEST = 4_000_000, 1e12
"""Side in px and area in px² that no slide exceeds."""
FARTHEST = 1e9
"""Base pixels from the origin that no outline reaches."""
MOST_CROSSINGS = 20_000
"""How often an outline may cross itself: the pieces of a hostile one would take hours to sort out."""
MAX_SILENT_UPSAMPLE = 2.0
"""A slide coarser than the working resolution by more than this is refused unless allowed."""


def qupath_origin(size: Sequence[int], bounds: Sequence[int] | None) -> tuple[int, int]:
    """Return the base pixel that QuPath calls (0, 0).

    QuPath crops a slide to its scanned *bounds* (x0, y0, x1, y1) when these have another width *and* another height
    than the slide's full *size*; otherwise it shows all of it.
    """
    if bounds is None:
        return 0, 0
    x0, y0, x1, y1 = bounds
    return (x0, y0) if x1 - x0 != size[0] and y1 - y0 != size[1] else (0, 0)


def mended(shape: shapely.Geometry) -> shapely.Geometry:
    """Return *shape* made valid.

    Raises
    ------
    ValueError
        When its coordinates are no place on a slide, or it crosses itself too often.
    """
    xy = shapely.get_coordinates(shape)
    if not (np.abs(xy) < FARTHEST).all():  # NaN is not
        raise ValueError(f"coordinates beyond {FARTHEST:g} px")
    if shape is None or shapely.is_valid(shape):
        return shape
    parts = shapely.get_parts(shapely.get_parts(shape))  # those of a collection may have parts of their own
    lines, ring = shapely.get_coordinates(shapely.get_rings(parts), return_index=True)
    joined = np.flatnonzero(ring[1:] == ring[:-1])
    edges = np.atleast_1d(np.asarray(shapely.linestrings(np.stack([lines[joined], lines[joined + 1]], axis=1))))
    tree, crossings = shapely.STRtree(edges), 0
    for k in range(0, len(edges), 64):
        crossings += tree.query(edges[k : k + 64], predicate="crosses").shape[1] // 2
        if crossings > MOST_CROSSINGS:
            raise ValueError(f"an outline crosses itself more than {MOST_CROSSINGS:,} times")
    return shapely.make_valid(shape)


@dataclass(frozen=True)
class Grid:
    """The working grid: the slide at the model's resolution, anchored at the slide's origin.

    Attributes
    ----------
    size : (int, int)
        Width and height in grid pixels; the last pixel may stick out of the slide by a fraction.
    scale : (float, float)
        Base pixels per grid pixel, in x and y.
    mpp : (float, float)
        Microns per grid pixel, in x and y (true ones: ``scale * base mpp``).
    level : int
        Pyramid level that pixels are read from.
    level_scale : (float, float)
        Pixels of that level per grid pixel; (1, 1) when the level is used as it is.
    """

    size: Size
    scale: Pair
    mpp: Pair
    level: int
    level_scale: Pair

    @property
    def um2_per_px(self) -> float:
        """Area of a grid pixel in µm²."""
        return self.mpp[0] * self.mpp[1]

    def base_box(self, box: Box) -> tuple[float, float, float, float]:
        """Return a grid *box* in base pixels."""
        (sx, sy), (x0, y0, x1, y1) = self.scale, box
        return x0 * sx, y0 * sy, x1 * sx, y1 * sy

    def grid_box(self, box_base: tuple[float, float, float, float]) -> Box:
        """Return the smallest whole-pixel grid box that covers a box in base pixels, clipped to the grid."""
        (sx, sy), (x0, y0, x1, y1) = self.scale, box_base
        box = math.floor(x0 / sx), math.floor(y0 / sy), math.ceil(x1 / sx), math.ceil(y1 / sy)
        return intersect(box, (0, 0, *self.size))


def working_grid(
    level_sizes: tuple[Size, ...],
    level_downsamples: tuple[Pair, ...],
    base_mpp: Pair,
    target_mpp: float,
    *,
    allow_upsample: bool = False,
) -> Grid:
    """Return the :class:`Grid` on which a slide is analysed at *target_mpp*.

    A level within 2 % of *target_mpp* in both axes is taken as it is; otherwise the coarsest level that is still finer
    is resampled; a slide that has none is upsampled from level 0.

    Raises
    ------
    SettingsError
        When the slide is more than 2x coarser than *target_mpp* and *allow_upsample* is false.
    """
    width, height = level_sizes[0]
    mpps = [(base_mpp[0] * dx, base_mpp[1] * dy) for dx, dy in level_downsamples]
    for level, mpp in enumerate(mpps):
        if all(abs(m / target_mpp - 1) <= LEVEL_TOLERANCE for m in mpp):
            return Grid(level_sizes[level], level_downsamples[level], mpp, level, (1.0, 1.0))
    finer = [level for level, mpp in enumerate(mpps) if max(mpp) <= target_mpp]
    level = max(finer, key=lambda i: mpps[i][0]) if finer else 0
    if max(base_mpp) > MAX_SILENT_UPSAMPLE * target_mpp and not allow_upsample:
        raise SettingsError(
            f"the slide has {max(base_mpp):.3g} µm/px, over {MAX_SILENT_UPSAMPLE:g}x coarser than the working "
            f"resolution of {target_mpp:g} µm/px; results would be poor (--allow-upsample runs it all the same)"
        )
    scale = target_mpp / base_mpp[0], target_mpp / base_mpp[1]
    down = level_downsamples[level]
    size = math.ceil(width / scale[0] - 1e-6), math.ceil(height / scale[1] - 1e-6)
    return Grid(size, scale, (target_mpp, target_mpp), level, (scale[0] / down[0], scale[1] / down[1]))


def intersect(a: Box, b: Box) -> Box:
    """Return the overlap of two boxes; empty overlaps have zero width or height, never a negative one."""
    x0, y0 = max(a[0], b[0]), max(a[1], b[1])
    return x0, y0, max(x0, min(a[2], b[2])), max(y0, min(a[3], b[3]))


def is_empty(box: Box) -> bool:
    """Whether *box* covers no pixel."""
    return box[2] <= box[0] or box[3] <= box[1]


def grow(box: Box, by: int) -> Box:
    """Return *box* grown by *by* pixels on every side."""
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by
