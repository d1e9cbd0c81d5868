"""What TIFF libraries do not tell of tiles: those that are missing (decoded as black) and those cut short (as grey)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage

from wsipipe.errors import FAILURES
from wsipipe.geometry import intersect, is_empty
from wsipipe.units import Box, Size

TILE_OFFSETS = 324
OLD_JPEG, NEW_JPEG = 6, 7
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
HEADER = 8
"""Bytes at the start of a TIFF where no tile can be."""
TAIL = 16
"""Bytes at the end of a tile in which the end of its JPEG must be; writers may pad."""


MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF begins, and a BigTIFF."""
LARGEST_TILE = 1 << 28
"""Pixels of a tile, 16,384 squared; no scanner writes a quarter of it."""


class Placed(NamedTuple):
    """A TIFF page and where its corner is, in the level's pixels."""

    page: Any
    corner: Size


def parts_held(tiff: TiffFile, parts: Sequence[Placed], box: Box) -> list[Box]:
    """Return the parts of *box* that the file holds, before any of it is read.

    Parameters
    ----------
    tiff : TiffFile
    parts : sequence of Placed
        The pages that make up the level.
    box : Box
        In the level's pixels.

    Raises
    ------
    ValueError
        When the data of a JPEG tile are cut short (decoders fill the rest with grey and do not complain), or when the
        directory gives them a place or a size that cannot be (which is decoded as black, or takes endless memory).
    """
    return [box_ for part in parts for box_ in _present(tiff, part, box)]


def missing_as_alpha(held: Sequence[Box], box: Box, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the *pixels* (h, w, 3 or 4) of *box*, as RGBA with the parts transparent that are not *held*."""
    if sum((b[2] - b[0]) * (b[3] - b[1]) for b in held) >= (box[2] - box[0]) * (box[3] - box[1]):
        return pixels
    alpha = np.zeros((*pixels.shape[:2], 1), np.uint8)
    for x0, y0, x1, y1 in held:
        alpha[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]] = 255
    return np.concatenate([pixels[..., :3], alpha], axis=2)


def _present(tiff: TiffFile, part: Placed, box: Box) -> Iterator[Box]:
    """Yield the parts of *box* that the page holds, after a look at the place and the ends of each tile's data."""
    page, (x, y) = part.page, part.corner
    size = page.keyframe.imagewidth, page.keyframe.imagelength
    inside = intersect(box, (x, y, x + size[0], y + size[1]))
    if is_empty(inside):
        return
    if not page.keyframe.is_tiled:
        yield inside
        return
    if page.keyframe.tilewidth * page.keyframe.tilelength > LARGEST_TILE:
        raise ValueError(
            f"its directory gives a tile {page.keyframe.tilewidth:,} pixels by {page.keyframe.tilelength:,}"
        )
    if not any(page.databytecounts):
        raise ValueError("its directory says that it holds no tile at all")
    for index, tile in _tiles_over(part, inside):
        if page.databytecounts[index]:
            _check_place(tiff, page.dataoffsets[index], page.databytecounts[index], tile)
            in_one = page.keyframe.jpegheader is not None  # of NDPI: a part of one large JPEG has no ends of its own
            if page.keyframe.compression in (OLD_JPEG, NEW_JPEG) and not in_one:
                _check_end(tiff, page.dataoffsets[index], page.databytecounts[index], tile)
            if page.keyframe.compression == NEW_JPEG and not in_one:
                _check_start(tiff, page.dataoffsets[index], tile)
            yield intersect(inside, tile)


def _tiles_over(part: Placed, box: Box) -> Iterator[tuple[int, Box]]:
    """Yield index and box of the tiles of a page that overlap *box*."""
    frame, (x, y) = part.page.keyframe, part.corner
    width, height = frame.tilewidth, frame.tilelength
    across = -(-frame.imagewidth // width)
    for j in range((box[1] - y) // height, -(-(box[3] - y) // height)):
        for i in range((box[0] - x) // width, -(-(box[2] - x) // width)):
            x0, y0 = x + i * width, y + j * height
            yield j * across + i, (x0, y0, x0 + width, y0 + height)


def _check_place(tiff: TiffFile, offset: int, count: int, tile: Box) -> None:
    if offset < HEADER or offset + count > tiff.filehandle.size:
        raise ValueError(f"the data of the tile at {tile} would be at {offset}, outside the file")


def _check_start(tiff: TiffFile, offset: int, tile: Box) -> None:
    tiff.filehandle.seek(offset)
    if tiff.filehandle.read(2) != JPEG_START:
        raise ValueError(f"what should be the tile at {tile} is no JPEG data")


def _check_end(tiff: TiffFile, offset: int, count: int, tile: Box) -> None:
    tail = min(TAIL, count)
    tiff.filehandle.seek(offset + count - tail)
    if JPEG_END not in tiff.filehandle.read(tail):
        raise ValueError(f"the JPEG data of the tile at {tile} are cut short")


def refuse_endless_tiles(path: str) -> None:
    """Refuse a TIFF whose directories promise tiles larger than the file, or than any, or more of them than they list.

    For OpenSlide, which asks for as much memory as a damaged directory says, and ends the process when there is none.

    Raises
    ------
    ValueError
    """
    with open(path, "rb") as file:
        if file.read(4) not in MAGIC:
            return
    size = os.path.getsize(path)
    try:
        with TiffFile(path) as tiff:
            tiled = [page for page in tiff.pages if isinstance(page, TiffPage) and page.is_tiled]
            largest = max((max(page.databytecounts, default=0) for page in tiled), default=0)
            area = max((page.tilewidth * page.tilelength for page in tiled), default=0)
            short = next((told for page in tiled if (told := _too_few(page))), None)
    except FAILURES:
        return  # nothing that tifffile understands; OpenSlide says what it makes of it
    if largest > size:
        raise ValueError(f"its directory gives a tile {largest:,} bytes, and the file has {size:,}: it is damaged")
    if area > LARGEST_TILE:
        raise ValueError(f"its directory gives a tile {area:,} pixels: it is damaged")
    if short:
        raise ValueError(short)


def refuse_missing_tiles(pages: Iterable[Any]) -> None:
    """Refuse pages that list fewer tiles than their size needs: the size is damaged, and most of it would be void.

    Parameters
    ----------
    pages : iterable of TiffPage
        Others, which have no directory of their own, are passed over.

    Raises
    ------
    ValueError
    """
    for page in pages:
        if isinstance(page, TiffPage) and page.is_tiled and (told := _too_few(page)):
            raise ValueError(told)


def _too_few(page: TiffPage) -> str | None:
    """Return what is wrong with a tiled page that lists fewer tiles than it has room for."""
    across, down = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
    listed = page.tags.get(TILE_OFFSETS)  # NDPI has none; the values need not be read for their count
    if listed is None or listed.count >= across * down:
        return None
    size = f"{page.imagewidth:,} x {page.imagelength:,} px"
    return f"its directory says {size}, which is {across * down:,} tiles, and lists {listed.count:,}: it is damaged"
