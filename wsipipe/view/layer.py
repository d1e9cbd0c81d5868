"""Cells of a tile in the form that the browser draws: outlines when near, dots when far; and the density map."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.figure.overlay import heat_map
from wsipipe.view.index import CellIndex, ranges
from wsipipe.view.wanted import ALL, Wanted

TILE = 512
"""Side of a tile of cells in pixels."""
DEEPER = 2
"""Cells have this many levels beyond the slide's: their outlines stay thin when the slide is enlarged."""
NEAR_PX = 4.0
"""Cells at least this wide on the tile are outlined; smaller ones are dots."""
FAR_PX = 1.5
"""Cells smaller than this on the tile are merged into one dot for each square of two by two pixels."""
OUTLINES, DOTS = 1, 2
_SIXTEENTHS, _BLEED = 16, 2.0
_STEP_PX = 1.5  # vertices of small outlines are thinned to about this distance
_DENSITY_SIDE, _DENSITY_UM, _SMOOTH_UM = 1536, 8.0, 25.0


class Heat(NamedTuple):
    """A density map as PNG, the base pixels it covers in x and y, and the cells per mm² of its strongest colour."""

    png: bytes
    width: float
    height: float
    top: float


def tile_bytes(index: CellIndex, scale: float, column: int, row: int, wanted: Wanted = ALL, measure: str = "") -> bytes:
    """Return the cells of a tile, little-endian: what it holds (1 outlines, 2 dots), their number n, and then

    - outlines: n codes (bytes), n numbers of vertices (16 bits), all vertices (pairs of 16 bits);
    - dots: n codes (bytes), n numbers of cells (bytes, at most 255), n centres (pairs of 16 bits).

    Vertices and centres are in sixteenths of a tile pixel from its corner; each part begins at a multiple of 4 bytes.

    Parameters
    ----------
    index : CellIndex
    scale : float
        Base pixels per tile pixel.
    column, row : int
    wanted : Wanted
        Which cells are shown.
    measure : str
        Codes are places in its spread, in place of classes.
    """
    side = TILE * scale
    x0, y0 = column * side, row * side
    if index.diameter_px / scale >= NEAR_PX:
        bleed = _BLEED * scale
        box = (x0 - bleed, y0 - bleed, x0 + side + bleed, y0 + side + bleed)
        return _outline_bytes(index, box, (x0, y0), scale, wanted, measure)
    return _dot_bytes(index, (x0, y0, x0 + side, y0 + side), scale, wanted, measure)


def density(index: CellIndex, wanted: Wanted = ALL) -> Heat:
    """Return the density of the cells of the whole slide, smoothed over about 25 µm."""
    mpp = math.sqrt(index.about["mpp"][0] * index.about["mpp"][1])
    bin_px = max(max(index.about["size"]) / _DENSITY_SIDE, _DENSITY_UM / mpp)
    counts = index.counts(bin_px, wanted)
    heat, top = heat_map(counts, max(1.0, _SMOOTH_UM / (bin_px * mpp)))
    _, data = cv2.imencode(".png", cv2.cvtColor(heat, cv2.COLOR_RGBA2BGRA))
    mm2 = (bin_px * mpp) ** 2 * 1e-6
    return Heat(bytes(data), counts.shape[1] * bin_px, counts.shape[0] * bin_px, top / mm2)


def _outline_bytes(
    index: CellIndex,
    box: tuple[float, float, float, float],
    corner: tuple[float, float],
    scale: float,
    wanted: Wanted,
    measure: str,
) -> bytes:
    codes, lengths, xy = index.outlines(box, wanted, measure)
    step = thinning(lengths, index.diameter_px / scale)
    if step > 1:
        starts = np.cumsum(lengths) - lengths
        within = ranges(np.zeros(len(lengths), np.int64), lengths)
        keep = (within % step == 0) & (within < np.repeat(lengths - 1, lengths))  # the last vertex repeats the first
        xy, lengths = xy[keep], np.add.reduceat(keep.astype(np.int64), starts)
    placed = np.rint((xy - np.asarray(corner, np.float32)) * (_SIXTEENTHS / scale)).clip(-32768, 32767).astype("<i2")
    return _packed(OUTLINES, len(codes), codes, lengths.clip(0, 65535).astype("<u2"), placed)


def thinning(lengths: NDArray[np.int64], diameter: float) -> int:
    """Return that every so-many-th vertex is enough for outlines of *diameter* pixels."""
    mean = float(lengths.mean()) if len(lengths) else 1.0
    return int(np.clip(mean * _STEP_PX / max(1e-6, math.pi * diameter), 1, max(1, mean // 6)))


def _dot_bytes(
    index: CellIndex,
    box: tuple[float, float, float, float],
    scale: float,
    wanted: Wanted,
    measure: str,
) -> bytes:
    codes, xy = index.dots(box, wanted, measure)
    placed = (
        np.rint((xy - np.asarray(box[:2], np.float32)) * (_SIXTEENTHS / scale))
        .clip(0, TILE * _SIXTEENTHS - 1)
        .astype(np.int32)
    )
    counts = np.ones(len(codes), np.int32)
    if index.diameter_px / scale < FAR_PX and len(codes):
        codes, counts, placed = _merged(codes, placed // (2 * _SIXTEENTHS))
    return _packed(DOTS, len(codes), codes, counts.clip(1, 255).astype(np.uint8), placed.astype("<i2"))


def _merged(
    codes: NDArray[np.uint8], square: NDArray[np.int32]
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
    """Return one dot for each *square* (n, 2) of two by two pixels: its commonest code, its cells, and its centre."""
    side = TILE // 2
    keys, counts = np.unique((square[:, 1] * side + square[:, 0]) * 256 + codes, return_counts=True)
    place = keys // 256
    order = np.lexsort((counts, place))
    last = np.append(np.flatnonzero(np.diff(place[order])), len(order) - 1)
    total = np.diff(np.concatenate([[0], np.cumsum(counts[order])[last]]))
    place = place[order][last]
    centre = (np.column_stack([place % side, place // side]) * 2 + 1) * _SIXTEENTHS
    return (keys[order][last] % 256).astype(np.uint8), total, centre


def _packed(kind: int, count: int, *parts: NDArray[np.generic]) -> bytes:
    """Return the parts with a head, each padded to a multiple of 4 bytes."""
    head = np.array([kind, count], "<u4").tobytes()
    return head + b"".join(data + bytes(-len(data) % 4) for data in (part.tobytes() for part in parts))
