"""Coordinates and measurements as JSON text, coordinates straight from well-known binary: the hot path of exports."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

_COMMA, _OPEN, _CLOSE, _MINUS, _POINT, _ZERO, _BRACE, _UNBRACE = (ord(c) for c in ",[]-.0{}")
_SCALES = 10.0 ** np.arange(16)


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
    text, ends = _polygons(data, offsets - offsets[0], origin[0], origin[1], decimals)
    if len(text) == 0:
        raise ValueError("a geometry is not a little-endian WKB polygon")
    return _cut(text, ends)


def point_coordinates(
    x: NDArray[np.float64], y: NDArray[np.float64], origin: tuple[float, float] = (0.0, 0.0), decimals: int = 2
) -> list[bytes]:
    """Return the GeoJSON coordinates of points, ``[x,y]``, as text; parameters as in :func:`polygon_coordinates`."""
    return _cut(*_points(x, y, origin[0], origin[1], decimals))


def number_objects(values: NDArray[np.float64], names: Sequence[str], decimals: int) -> list[bytes]:
    """Return a JSON object of each row of *values* (n, names), as text, just as ``orjson`` writes it.

    What is no number is ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``, in quotes.

    Parameters
    ----------
    values : float64 (n, m)
        Rounded to *decimals*, below 1e15 / 10^*decimals* or not finite.
    """
    if not len(values):
        return []
    keys = [b"," + orjson.dumps(name) + b":" for name in names]
    ends = np.cumsum([len(key) for key in keys])
    return _cut(*_objects(values, np.frombuffer(b"".join(keys), np.uint8), ends, decimals))


def _cut(text: NDArray[np.uint8], ends: NDArray[np.int64]) -> list[bytes]:
    whole, stops = text.tobytes(), ends.tolist()
    return [whole[a:b] for a, b in zip([0, *stops[:-1]], stops, strict=True)]


@numba.njit(cache=True, nogil=True)
def _number(out: NDArray[np.uint8], at: int, value: float, decimals: int) -> int:
    """Write *value*, rounded to *decimals*, at ``out[at:]`` and return where it ends; zeros at the end are left out."""
    whole = int(np.rint(value * _SCALES[decimals]))
    if whole < 0:
        out[at] = _MINUS
        at += 1
        whole = -whole
    while decimals and whole % 10 == 0:
        whole //= 10
        decimals -= 1
    size, rest = 1, whole // 10
    while rest or size <= decimals:
        size += 1
        rest //= 10
    end = at + size + (1 if decimals else 0)
    for k in range(end - 1, at - 1, -1):
        if decimals and k == end - 1 - decimals:
            out[k] = _POINT
        else:
            out[k] = _ZERO + whole % 10
            whole //= 10
    return end


@numba.njit(cache=True, nogil=True)
def _pair(out: NDArray[np.uint8], at: int, x: float, y: float, decimals: int) -> int:
    """Write ``[x,y]`` at ``out[at:]`` and return where it ends."""
    out[at] = _OPEN
    at = _number(out, at + 1, x, decimals)
    out[at] = _COMMA
    at = _number(out, at + 1, y, decimals)
    out[at] = _CLOSE
    return at + 1


_WORDS = np.frombuffer(b'"NaN"     "Infinity""-Infinity"', np.uint8)
_STARTS, _ENDS = (0, 10, 20), (5, 20, 31)


@numba.njit(cache=True, nogil=True)
def _objects(
    values: NDArray[np.float64], keys: NDArray[np.uint8], key_ends: NDArray[np.int64], decimals: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the text of the objects of all rows, and where each ends."""
    n, m = values.shape
    out, ends, at = np.empty(n * (len(keys) + 24 * m + 2), np.uint8), np.empty(n, np.int64), 0
    for i in range(n):
        first = 0
        for j in range(m):
            for k in range(first, key_ends[j]):
                out[at] = keys[k]
                at += 1
            if j == 0:
                out[at - key_ends[0]] = _BRACE
            first = key_ends[j]
            at = _decimal(out, at, values[i, j], decimals)
        out[at] = _UNBRACE
        at += 1
        ends[i] = at
    return out[:at], ends


@numba.njit(cache=True, nogil=True)
def _decimal(out: NDArray[np.uint8], at: int, value: float, decimals: int) -> int:
    """Write *value* with a point at ``out[at:]`` and return where it ends."""
    if not np.isfinite(value):
        word = 0 if np.isnan(value) else 1 if value > 0 else 2
        for k in range(_STARTS[word], _ENDS[word]):
            out[at] = _WORDS[k]
            at += 1
        return at
    if value == 0 and np.signbit(value):
        out[at] = _MINUS
        at += 1
    start = at
    at = _number(out, at, value, decimals)
    for k in range(start, at):
        if out[k] == _POINT:
            return at
    out[at], out[at + 1] = _POINT, _ZERO
    return at + 2


@numba.njit(cache=True, nogil=True)
def _points(
    x: NDArray[np.float64], y: NDArray[np.float64], ox: float, oy: float, decimals: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the text of all points and where each ends."""
    out, ends, at = np.empty(64 * len(x), np.uint8), np.empty(len(x), np.int64), 0
    for i in range(len(x)):
        at = _pair(out, at, x[i] - ox, y[i] - oy, decimals)
        ends[i] = at
    return out[:at], ends


@numba.njit(cache=True, nogil=True)
def _polygons(
    wkb: NDArray[np.uint8], offsets: NDArray[np.int64], ox: float, oy: float, decimals: int
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
            p, at = _ring(wkb, p, end, out, at + 1, ox, oy, decimals)
            if p < 0:
                return out[:0], ends
        out[at] = _CLOSE
        at += 1
        ends[i] = at
    return out[:at], ends


@numba.njit(cache=True, nogil=True)
def _ring(
    wkb: NDArray[np.uint8], p: int, end: int, out: NDArray[np.uint8], at: int, ox: float, oy: float, decimals: int
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
        at = _pair(out, at + 1, xy[0] - ox, xy[1] - oy, decimals)
        p += 16
    out[at] = _CLOSE
    return p, at + 1


@numba.njit(cache=True, nogil=True)
def _count(wkb: NDArray[np.uint8], p: int) -> int:
    """Return the 32-bit number at ``wkb[p:]``."""
    return int(wkb[p]) | int(wkb[p + 1]) << 8 | int(wkb[p + 2]) << 16 | int(wkb[p + 3]) << 24
