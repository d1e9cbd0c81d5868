"""A whole slide on a coarse grid, in bounded memory."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.errors import MissingMpp, TileReadError
from wsipipe.slide.protocol import Slide
from wsipipe.slide.reader import blank
from wsipipe.units import Box, Pair, Size

STRIP_PIXELS = 1 << 21
"""Level pixels decoded at a time."""
SMALLEST_RETRY = 256
"""A region that cannot be decoded is halved down to this side; what then still fails shows the background colour."""


def thumbnail(slide: Slide, mpp: float) -> tuple[NDArray[np.uint8], Pair]:
    """Return the whole slide at *mpp*, area-averaged from the coarsest level that is fine enough.

    Parameters
    ----------
    slide : Slide
    mpp : float
        Resolution wanted, in um/px. Never finer than level 0.

    Returns
    -------
    rgb : uint8 array (h, w, 3)
        Pixel (i, j) averages the base pixels from ``scale * (j, i)`` on; the last row and column what is left of them.
    scale : (float, float)
        Base pixels per thumbnail pixel, in x and y.

    Raises
    ------
    MissingMpp
        When the slide does not state its resolution.
    """
    info = slide.info
    if info.mpp is None:
        raise MissingMpp(f"{info.path} does not state its resolution: give it in um/px, as in --mpp 0.25")
    scale = max(1.0, mpp / info.mpp[0]), max(1.0, mpp / info.mpp[1])
    level = max(i for i, lv in enumerate(info.levels) if i == 0 or _is_finer(lv.downsample, scale))
    down = info.levels[level].downsample
    return _averaged(slide, level, (scale[0] / down[0], scale[1] / down[1])), scale


def _is_finer(downsample: Pair, scale: Pair) -> bool:
    return downsample[0] <= scale[0] * 1.001 and downsample[1] <= scale[1] * 1.001


def _averaged(slide: Slide, level: int, factor: Pair) -> NDArray[np.uint8]:
    """Return *level* reduced by *factor* level pixels per output pixel, strip by strip."""
    width, height = slide.info.levels[level].size
    x_edges, y_edges = _edges(width, factor[0]), _edges(height, factor[1])
    out = np.empty((len(y_edges) - 1, len(x_edges) - 1, 3), np.uint8)
    rows = max(1, int(STRIP_PIXELS / width / factor[1]))
    for top in range(0, len(out), rows):
        edges = y_edges[top : top + rows + 1]
        y0, y1 = math.floor(edges[0]), math.ceil(edges[-1])
        _area_means(read_tolerantly(slide, level, 0, y0, width, y1 - y0), x_edges, edges - y0, out[top : top + rows])
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


def read_scaled(slide: Slide, box: Box, scale: Pair, size: Size) -> NDArray[np.uint8]:
    """Return *box* (base pixels) as a picture of *size*, from the coarsest level that is fine enough.

    Parameters
    ----------
    slide : Slide
    box : Box
    scale : (float, float)
        Base pixels per picture pixel, in x and y; below 1 the picture is enlarged.
    size : (int, int)
        Width and height of the picture.

    Returns
    -------
    uint8 array (h, w, 3)
        Read strip by strip; what cannot be decoded has the background colour.
    """
    downs, out = [level.downsample for level in slide.info.levels], np.empty((size[1], size[0], 3), np.uint8)
    level = max(i for i, down in enumerate(downs) if i == 0 or _is_finer(down, scale))
    down_x, down_y = downs[level]
    x, width = round(box[0] / down_x), max(1, round((box[2] - box[0]) / down_x))
    rows = max(1, int(STRIP_PIXELS / width * down_y / scale[1])) if scale[1] >= 1 else size[1]
    for top in range(0, size[1], rows):
        end = min(size[1], top + rows)
        y0, y1 = (round((box[1] + row * scale[1]) / down_y) for row in (top, end))
        strip = read_tolerantly(slide, level, x, y0, width, max(1, y1 - y0))
        how = cv2.INTER_AREA if scale[0] >= 1 else cv2.INTER_CUBIC
        out[top:end] = cv2.resize(strip, (size[0], end - top), interpolation=how)
    return out


def read_tolerantly(slide: Slide, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
    """Return RGB pixels (height, width, 3) as ``read_region`` does, with undecodable parts in the background colour.

    For overviews only: nothing records what was left out.
    """
    try:
        return slide.read_region(level, x, y, width, height)
    except TileReadError:
        if max(width, height) <= SMALLEST_RETRY:
            return blank(slide.info, width, height)
    if width >= height:
        half = width // 2
        left = read_tolerantly(slide, level, x, y, half, height)
        return np.concatenate([left, read_tolerantly(slide, level, x + half, y, width - half, height)], axis=1)
    half = height // 2
    top = read_tolerantly(slide, level, x, y, width, half)
    return np.concatenate([top, read_tolerantly(slide, level, x, y + half, width, height - half)], axis=0)
