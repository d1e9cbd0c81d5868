"""A whole slide on a coarse grid, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import shapely
from numba import njit
from numpy.typing import NDArray

from wsipipe.errors import TileReadError
from wsipipe.geometry import intersect
from wsipipe.slide.protocol import Slide
from wsipipe.slide.reader import blank
from wsipipe.slide.resolution import missing_mpp
from wsipipe.units import Box, Pair, Size

STRIP_PIXELS = 1 << 21
"""Level pixels decoded at a time."""
SMALLEST_RETRY = 256
"""A region that cannot be decoded is halved down to this side; what then still fails is looked up in other levels."""
SMALLEST_GAP = 512
"""What no level gives whole is halved down to this side, in base pixels, and then shows the background colour."""


@dataclass
class Gaps:
    """What the level that a picture is made of does not give, as boxes in base pixels.

    Attributes
    ----------
    mended : list of Box
        Taken from another level.
    lost : list of Box
        Readable in no level; the picture has the background colour there.
    """

    mended: list[Box] = field(default_factory=list)
    lost: list[Box] = field(default_factory=list)

    def told(self, base_mpp: Pair, taken_for: str) -> tuple[str, ...]:
        """Return a line on what was lost, and was *taken for* something; none where all could be read."""
        if not self.lost:
            return ()
        mm2 = shapely.union_all([shapely.box(*box) for box in self.lost]).area * base_mpp[0] * base_mpp[1] * 1e-6
        return (f"{mm2:.3g} mm² of the slide cannot be read in any pyramid level: taken for {taken_for}",)


class Overview(NamedTuple):
    """A whole slide as a small picture: uint8 (h, w, 3), base pixels per pixel of it, and what could not be read."""

    rgb: NDArray[np.uint8]
    scale: Pair
    gaps: Gaps

    @property
    def is_flat(self) -> bool:
        """Whether all of it was read, and has one colour."""
        return not self.gaps.lost and bool((self.rgb == self.rgb[0, 0]).all())


def thumbnail(slide: Slide, mpp: float) -> tuple[NDArray[np.uint8], Pair]:
    """Return picture and scale of :func:`overview`."""
    return overview(slide, mpp)[:2]


def overview(slide: Slide, mpp: float) -> Overview:
    """Return the whole slide at *mpp*, area-averaged from the coarsest level that is fine enough.

    What cannot be read there is looked up in other levels. A level of one flat colour, as damaged directories give it,
    counts as unreadable while a finer one shows more.

    Parameters
    ----------
    slide : Slide
    mpp : float
        Resolution wanted, in µm/px. Never finer than level 0.

    Returns
    -------
    rgb : uint8 array (h, w, 3)
        Pixel (i, j) averages the base pixels from ``scale * (j, i)`` on; the last row and column what is left of them.
    scale : (float, float)
        Base pixels per thumbnail pixel, in x and y.
    gaps : Gaps

    Raises
    ------
    MissingMpp
        When the slide does not state its resolution.
    """
    info = slide.info
    if info.mpp is None:
        raise missing_mpp(info.path)
    scale = max(1.0, mpp / info.mpp[0]), max(1.0, mpp / info.mpp[1])
    best = max(i for i, lv in enumerate(info.levels) if i == 0 or _is_finer(lv.downsample, scale))
    found = _at_level(slide, best, scale)
    for level in range(best - 1, -1, -1):
        if not found.is_flat:
            return found
        if not (finer := _at_level(slide, level, scale)).is_flat:
            finer.gaps.mended.append((0, 0, *info.size))
            return finer
    return found


def _at_level(slide: Slide, level: int, scale: Pair) -> Overview:
    """Return the overview that *level* gives."""
    gaps, down = Gaps(), slide.info.levels[level].downsample
    return Overview(_averaged(slide, level, (scale[0] / down[0], scale[1] / down[1]), gaps), scale, gaps)


def _is_finer(downsample: Pair, scale: Pair) -> bool:
    return downsample[0] <= scale[0] * 1.001 and downsample[1] <= scale[1] * 1.001


def _averaged(slide: Slide, level: int, factor: Pair, gaps: Gaps) -> NDArray[np.uint8]:
    """Return *level* reduced by *factor* level pixels per output pixel, strip by strip."""
    width, height = slide.info.levels[level].size
    x_edges, y_edges = _edges(width, factor[0]), _edges(height, factor[1])
    out = np.empty((len(y_edges) - 1, len(x_edges) - 1, 3), np.uint8)
    rows = max(1, int(STRIP_PIXELS / width / factor[1]))
    for top in range(0, len(out), rows):
        edges = y_edges[top : top + rows + 1]
        y0, y1 = math.floor(edges[0]), math.ceil(edges[-1])
        strip = read_tolerantly(slide, level, 0, y0, width, y1 - y0, gaps)
        _area_means(strip, x_edges, edges - y0, out[top : top + rows])
    return out


def _edges(size: int, factor: float) -> NDArray[np.float64]:
    """Return the borders of output pixels in input pixels: steps of *factor*, the last cut at *size*."""
    count = max(1, math.ceil(size / factor - 1e-6))
    edges: NDArray[np.float64] = np.minimum(np.arange(count + 1) * factor, size)
    return edges


@njit(cache=True, nogil=True)
def _area_means(
    pixels: NDArray[np.uint8], x_edges: NDArray[np.float64], y_edges: NDArray[np.float64], out: NDArray[np.uint8]
) -> None:
    """Write the means of *pixels* (h, w, 3) between fractional edges into *out* (ny, nx, 3)."""
    for i in range(out.shape[0]):
        y0, y1 = y_edges[i], y_edges[i + 1]
        for j in range(out.shape[1]):
            x0, x1 = x_edges[j], x_edges[j + 1]
            red = green = blue = 0.0
            for y in range(int(y0), min(math.ceil(y1), pixels.shape[0])):
                high = min(y + 1.0, y1) - max(float(y), y0)
                for x in range(int(x0), min(math.ceil(x1), pixels.shape[1])):
                    weight = high * (min(x + 1.0, x1) - max(float(x), x0))
                    red += weight * pixels[y, x, 0]
                    green += weight * pixels[y, x, 1]
                    blue += weight * pixels[y, x, 2]
            area = (y1 - y0) * (x1 - x0)
            out[i, j, 0] = np.uint8(np.rint(red / area))
            out[i, j, 1] = np.uint8(np.rint(green / area))
            out[i, j, 2] = np.uint8(np.rint(blue / area))


def read_scaled(slide: Slide, box: Box, scale: Pair, size: Size, gaps: Gaps | None = None) -> NDArray[np.uint8]:
    """Return *box* (base pixels) as a picture of *size*, from the coarsest level that is fine enough.

    Parameters
    ----------
    slide : Slide
    box : Box
    scale : (float, float)
        Base pixels per picture pixel, in x and y; below 1 the picture is enlarged.
    size : (int, int)
        Width and height of the picture.
    gaps : Gaps, optional
        Is told what could not be read.

    Returns
    -------
    uint8 array (h, w, 3)
        Read strip by strip; what cannot be decoded comes from another level, or has the background colour.
    """
    downs = [level.downsample for level in slide.info.levels]
    level = max(i for i, down in enumerate(downs) if i == 0 or _is_finer(down, scale))

    return _in_strips(partial(read_tolerantly, slide, gaps=gaps), level, downs[level], box, scale, size)


def _in_strips(
    read: Callable[..., NDArray[np.uint8]],
    level: int,
    down: Pair,
    box: tuple[float, float, float, float],
    scale: Pair,
    size: Size,
) -> NDArray[np.uint8]:
    """Return what *read* (level, x, y, width, height) gives of *box* (base pixels), as a picture of *size*."""
    out, (down_x, down_y) = np.empty((size[1], size[0], 3), np.uint8), down
    x, width = round(box[0] / down_x), max(1, round((box[2] - box[0]) / down_x))
    rows = max(1, int(STRIP_PIXELS / width * down_y / scale[1])) if scale[1] >= 1 else size[1]
    for top in range(0, size[1], rows):
        end = min(size[1], top + rows)
        y0, y1 = (round((box[1] + row * scale[1]) / down_y) for row in (top, end))
        strip = read(level, x, y0, width, max(1, y1 - y0))
        how = cv2.INTER_AREA if scale[0] >= 1 else cv2.INTER_CUBIC
        out[top:end] = cv2.resize(strip, (size[0], end - top), interpolation=how)
    return out


def read_tolerantly(
    slide: Slide, level: int, x: int, y: int, width: int, height: int, gaps: Gaps | None = None
) -> NDArray[np.uint8]:
    """Return RGB pixels (height, width, 3) as ``read_region`` does; what cannot be decoded comes from other levels.

    Parameters
    ----------
    gaps : Gaps, optional
        Is told what was looked up elsewhere, and what no level holds: that has the background colour.
    """
    try:
        return slide.read_region(level, x, y, width, height)
    except TileReadError:
        gaps = Gaps() if gaps is None else gaps
        if max(width, height) <= SMALLEST_RETRY:
            return _elsewhere(slide, level, (x, y, x + width, y + height), gaps)
    return _halved(lambda a, b, w, h: read_tolerantly(slide, level, a, b, w, h, gaps), x, y, width, height)


def _halved(
    read: Callable[[int, int, int, int], NDArray[np.uint8]], x: int, y: int, width: int, height: int
) -> NDArray[np.uint8]:
    """Return the region that *read* (x, y, width, height) gives half by half, cut across its longer side."""
    if width >= height:
        half = width // 2
        return np.concatenate([read(x, y, half, height), read(x + half, y, width - half, height)], axis=1)
    half = height // 2
    return np.concatenate([read(x, y, width, half), read(x, y + half, width, height - half)], axis=0)


def _elsewhere(slide: Slide, level: int, box: Box, gaps: Gaps) -> NDArray[np.uint8]:
    """Return *box* (pixels of *level*, where it cannot be decoded) from the other levels, in parts where need be."""
    down, (x, y, x1, y1) = slide.info.levels[level].downsample, box
    size = x1 - x, y1 - y
    wide = x * down[0], y * down[1], x1 * down[0], y1 * down[1]
    base = intersect(tuple(round(v) for v in wide), (0, 0, *slide.info.size))  # type: ignore[arg-type]
    for other in _others(slide, level):
        try:
            pixels = _in_strips(slide.read_region, other, slide.info.levels[other].downsample, wide, down, size)
        except TileReadError:
            continue
        gaps.mended.append(base)
        return pixels
    if max(size) > 1 and max(n * d for n, d in zip(size, down, strict=True)) > SMALLEST_GAP:
        return _halved(lambda a, b, w, h: _elsewhere(slide, level, (a, b, a + w, b + h), gaps), x, y, *size)
    gaps.lost.append(base)
    return blank(slide.info, *size)


def _others(slide: Slide, level: int) -> Iterator[int]:
    """Yield the other levels: finer ones first, which show no less, the nearest of either kind first."""
    yield from range(level - 1, -1, -1)
    yield from range(level + 1, len(slide.info.levels))
