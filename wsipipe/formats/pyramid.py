"""Image pyramids in Zarr v3, sharded and written shard by shard in bounded memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from wsipipe.units import Box, Size

CHUNK = 512
SMALLEST = 1024
"""A level with no side longer than this is the last one."""

Image = NDArray[Any]
Read = Callable[[Box], Image | None]
"""Returns the pixels (h, w) or (h, w, 3) of a box of level 0; None where there is nothing but zeros."""


@dataclass(frozen=True)
class Level:
    """One level of a pyramid: its path in the group, and its width and height."""

    path: str
    size: Size


def level_sizes(size: Size) -> list[Size]:
    """Return width and height of every level, each half the one before, rounded up."""
    sizes = [size]
    while max(sizes[-1]) > SMALLEST:
        width, height = sizes[-1]
        sizes.append((math.ceil(width / 2), math.ceil(height / 2)))
    return sizes


def write_pyramid(group: zarr.Group, size: Size, read: Read, *, labels: bool, shard: int, prefix: str) -> list[Level]:
    """Write the pixels that *read* returns, and ever smaller copies of them, into *group*; return the levels.

    Parameters
    ----------
    group : zarr.Group
    size : (int, int)
        Width and height of level 0.
    read : callable
        Called once for every shard, row by row.
    labels : bool
        int32 labels (y, x), made smaller by taking every second pixel; otherwise uint8 RGB (c, y, x), by averaging.
    shard : int
        Side of a shard in pixels; a multiple of 512.
    prefix : str
        Levels are named PREFIX0, PREFIX1, ...
    """
    levels = [Level(f"{prefix}{k}", size) for k, size in enumerate(level_sizes(size))]
    source: zarr.Array[Any] | None = None
    for level in levels:
        array = _create(group, level, labels, shard)
        for box in _shards(level.size, shard):
            pixels = read(box) if source is None else _halved(source, box, labels)
            if pixels is not None:
                _write(array, box, pixels)
        source = array
    return levels


def _create(group: zarr.Group, level: Level, labels: bool, shard: int) -> zarr.Array[Any]:
    (width, height), colours = level.size, () if labels else (3,)
    return group.create_array(
        level.path,
        shape=(*colours, height, width),
        chunks=(*colours, CHUNK, CHUNK),
        shards=(*colours, shard, shard),
        dtype="int32" if labels else "uint8",
        fill_value=0,
        compressors=ZstdCodec(level=3),
        dimension_names=("y", "x") if labels else ("c", "y", "x"),
    )


def _shards(size: Size, shard: int) -> Iterator[Box]:
    for y, x in itertools.product(range(0, size[1], shard), range(0, size[0], shard)):
        yield x, y, min(x + shard, size[0]), min(y + shard, size[1])


def _write(array: zarr.Array[Any], box: Box, pixels: Image) -> None:
    x0, y0, x1, y1 = box
    array[..., y0:y1, x0:x1] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _halved(source: zarr.Array[Any], box: Box, labels: bool) -> Image:
    """Return *box* of the next smaller level, from *source*, a quarter at a time."""
    x0, y0, x1, y1 = box
    out = np.zeros((y1 - y0, x1 - x0, *(() if labels else (3,))), source.dtype)
    step = max(1, max(x1 - x0, y1 - y0) // 2)
    for y, x in itertools.product(range(y0, y1, step), range(x0, x1, step)):
        bottom, right = min(y + step, y1), min(x + step, x1)
        part = np.asarray(source[..., 2 * y : 2 * bottom, 2 * x : 2 * right])
        out[y - y0 : bottom - y0, x - x0 : right - x0] = part[::2, ::2] if labels else _averaged(part)
    return out


def _averaged(part: Image) -> Image:
    """Return the means (h, w, 3) of 2 x 2 pixels of *part* (3, h', w'); odd edges are repeated."""
    pixels = np.ascontiguousarray(part.transpose(1, 2, 0))
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA)
