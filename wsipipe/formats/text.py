"""Coordinates as JSON text, written straight from well-known binary: the hot path of the GeoJSON export."""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_COMMA, _OPEN, _CLOSE, _MINUS, _POINT, _ZERO = (ord(c) for c in ",[]-.0")


def polygon_coordinates(
    wkb: pa.BinaryArray, origin: tuple[float, float] = (0.0, 0.0), decimals: int = 2
) -> list[bytes]:
    """Return the GeoJSON coordinates of polygons, ``[[[x,y],...],...]``, as text.

    Parameters
    ----------
    wkb : pyarrow.BinaryArray
        Little-endian WKB polygons without nulls.
    origin : (float, float)
        Subtracted from x and y.
    decimals : int
        Coordinates are rounded to this many decimals; zeros at the end are left out.

    Raises
    ------
    ValueError
        When something is not a little-endian WKB polygon.
    """
    if not len(wkb):
        return []
    offsets = np.frombuffer(wkb.buffers()[1], np.int32)[wkb.offset : wkb.offset + len(wkb) + 1].astype(np.int64)
    data = np.frombuffer(wkb.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    text, ends = _polygons(data, offsets - offsets[0], origin[0], origin[1], 10**decimals)
    if len(text) == 0:
        raise ValueError("a geometry is not a little-endian WKB polygon")
    return _cut(text, ends)


def point_coordinates(
    x: NDArray[np.float64], y: NDArray[np.float64], origin: tuple[float, float] = (0.0, 0.0), decimals: int = 2
) -> list[bytes]:
    """Return the GeoJSON coordinates of points, ``[x,y]``, as text; parameters as in :func:`polygon_coordinates`."""
    return _cut(*_points(x, y, origin[0], origin[1], 10**decimals))


def _cut(text: NDArray[np.uint8], ends: NDArray[np.int64]) -> list[bytes]:
    whole, stops = text.tobytes(), ends.tolist()
    return [whole[a:b] for a, b in zip([0, *stops[:-1]], stops, strict=True)]


@numba.njit(cache=True, nogil=True)
def _number(out: NDArray[np.uint8], at: int, value: float, unit: int) -> int:
    """Write *value*, rounded to 1/*unit*, at ``out[at:]`` and return where it ends."""
    whole = int(np.rint(value * unit))
    if whole < 0:
        out[at] = _MINUS
        at += 1
        whole = -whole
    fraction = whole % unit
    at = _digits(out, at, whole // unit)
    if fraction:
        out[at] = _POINT
        at += 1
        while fraction:
            unit //= 10
            out[at] = _ZERO + fraction // unit
            fraction %= unit
            at += 1
    return at


@numba.njit(cache=True, nogil=True)
def _digits(out: NDArray[np.uint8], at: int, value: int) -> int:
    """Write a whole number >= 0 at ``out[at:]`` and return where it ends."""
    size, rest = 1, value // 10
    while rest:
        size += 1
        rest //= 10
    for k in range(at + size - 1, at - 1, -1):
        out[k] = _ZERO + value % 10
        value //= 10
    return at + size


@numba.njit(cache=True, nogil=True)
def _pair(out: NDArray[np.uint8], at: int, x: float, y: float, unit: int) -> int:
    """Write ``[x,y]`` at ``out[at:]`` and return where it ends."""
    out[at] = _OPEN
    at = _number(out, at + 1, x, unit)
    out[at] = _COMMA
    at = _number(out, at + 1, y, unit)
    out[at] = _CLOSE
    return at + 1


@numba.njit(cache=True, nogil=True)
def _points(
    x: NDArray[np.float64], y: NDArray[np.float64], ox: float, oy: float, unit: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the text of all points and where each ends."""
    out, ends, at = np.empty(64 * len(x), np.uint8), np.empty(len(x), np.int64), 0
    for i in range(len(x)):
        at = _pair(out, at, x[i] - ox, y[i] - oy, unit)
        ends[i] = at
    return out[:at], ends


@numba.njit(cache=True, nogil=True)
def _polygons(
    wkb: NDArray[np.uint8], offsets: NDArray[np.int64], ox: float, oy: float, unit: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the text of all polygons and where each ends; no text at all when one is not a polygon."""
    n = len(offsets) - 1
    out, ends, at = np.empty(4 * len(wkb) + 64, np.uint8), np.empty(n, np.int64), 0
    for i in range(n):
        p, end = offsets[i], offsets[i + 1]
        if end - p < 9 or wkb[p] != 1 or _count(wkb, p + 1) != 3:
            return out[:0], ends
        rings = _count(wkb, p + 5)
        p += 9
        for ring in range(rings):
            out[at] = _COMMA if ring else _OPEN
            p, at = _ring(wkb, p, end, out, at + 1, ox, oy, unit)
            if p < 0:
                return out[:0], ends
        out[at] = _CLOSE
        at += 1
        ends[i] = at
    return out[:at], ends


@numba.njit(cache=True, nogil=True)
def _ring(
    wkb: NDArray[np.uint8], p: int, end: int, out: NDArray[np.uint8], at: int, ox: float, oy: float, unit: int
) -> tuple[int, int]:
    """Write the ring at ``wkb[p:end]`` at ``out[at:]``; return where both end, (-1, at) when it is broken."""
    vertices = _count(wkb, p) if p + 4 <= end else 1
    p += 4
    if vertices == 0 or p + 16 * vertices > end:
        return -1, at
    pair = np.empty(16, np.uint8)
    xy = pair.view(np.float64)
    for vertex in range(vertices):
        for k in range(16):
            pair[k] = wkb[p + k]
        if not (abs(xy[0]) < 1e9 and abs(xy[1]) < 1e9):
            return -1, at
        out[at] = _COMMA if vertex else _OPEN
        at = _pair(out, at + 1, xy[0] - ox, xy[1] - oy, unit)
        p += 16
    out[at] = _CLOSE
    return p, at + 1


@numba.njit(cache=True, nogil=True)
def _count(wkb: NDArray[np.uint8], p: int) -> int:
    """Return the 32-bit number at ``wkb[p:]``."""
    return int(wkb[p]) | int(wkb[p + 1]) << 8 | int(wkb[p + 2]) << 16 | int(wkb[p + 3]) << 24
