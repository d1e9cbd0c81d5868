"""Files between tasks: the maps and pixels of one block, read piece by piece by the blocks around it.

One zip archive a block (entries stored, each compressed by Blosc), written whole: ``tile/I_J`` holds the maps of a
tile, ``rgb/X0_Y0_X1_Y1`` the pixels of a piece of the core, ``bad`` the unreadable boxes.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from wsipipe.artifacts import atomic_path, from_json
from wsipipe.errors import StoreError
from wsipipe.formats.parts import check_part
from wsipipe.geometry import intersect, is_empty
from wsipipe.raster.tiling import TILE
from wsipipe.units import Box

PIECE, EDGE = 512, 64
"""Longest side of the pieces in which pixels are kept; their depth along a block's border, which neighbours read."""
_CODEC = Blosc("lz4", clevel=1, shuffle=Blosc.NOSHUFFLE)


class Scratch:
    """Names of the files of one run, inside its working folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.maps_folder, self.parts_folder = folder / "maps", folder / "parts"

    def create(self) -> None:
        """Make the folders."""
        self.maps_folder.mkdir(parents=True, exist_ok=True)
        self.parts_folder.mkdir(parents=True, exist_ok=True)

    def maps(self, block: int) -> Path:
        """Return the file of a block's maps."""
        return self.maps_folder / f"{block:08d}.zip"

    def part(self, block: int) -> Path:
        """Return the file of a block's cells."""
        return self.parts_folder / f"{block:08d}.arrow"

    def bad(self, block: int) -> Path:
        """Return the file of the unreadable boxes that a block met; there only if there are any."""
        return self.maps_folder / f"{block:08d}.bad.json"

    def all_bad(self) -> list[Box]:
        """Return the unreadable boxes of all blocks, in this run and in interrupted ones before it, sorted."""
        found = {
            tuple(box) for path in self.maps_folder.glob("*.bad.json") for box in from_json(path.read_text("utf-8"))
        }
        return sorted((x0, y0, x1, y1) for x0, y0, x1, y1 in found)

    def predicted(self) -> set[int]:
        """Return the blocks whose maps are there; those that cannot be read are removed, to be made again."""
        return {int(path.stem) for path in self.maps_folder.glob("*.zip") if _kept(path, _check_maps)}

    def finished(self) -> set[int]:
        """Return the blocks whose cells are there; those that cannot be read are removed, to be made again."""
        return {int(path.stem) for path in self.parts_folder.glob("*.arrow") if _kept(path, check_part)}

    def is_whole(self) -> bool:
        """Whether the lists of unreadable boxes, which outlive the maps that they belong to, can be read."""
        try:
            self.all_bad()
        except (OSError, ValueError, TypeError):
            return False
        return True

    def drop(self, blocks: Iterable[int]) -> None:
        """Delete the maps of *blocks*."""
        for block in blocks:
            self.maps(block).unlink(missing_ok=True)


def _kept(path: Path, check: Callable[[Path], None]) -> bool:
    """Whether *check* finds nothing wrong with a file; it is removed otherwise."""
    try:
        check(path)
    except (OSError, ValueError, LookupError, NotImplementedError, RuntimeError, zipfile.BadZipFile, StoreError):
        path.unlink(missing_ok=True)
        return False
    return True


def _check_maps(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None or "bad" not in archive.namelist():
            raise zipfile.BadZipFile("an entry is damaged")


def pieces(box: Box) -> list[Box]:
    """Return *box* cut into the pieces in which its pixels are kept."""
    rows, columns = _cuts(box[1], box[3]), _cuts(box[0], box[2])
    return [(x0, y0, x1, y1) for y0, y1 in pairwise(rows) for x0, x1 in pairwise(columns)]


def _cuts(start: int, stop: int) -> list[int]:
    """Return the borders between pieces along one side of a block, both ends included."""
    inner = {start + EDGE, stop - EDGE, *range(start - start % PIECE + PIECE, stop, PIECE)}
    return sorted({start, stop, *(cut for cut in inner if start < cut < stop)})


def write_maps(
    path: Path,
    tiles: Mapping[tuple[int, int], NDArray[np.uint8]],
    pixels: Mapping[Box, NDArray[np.uint8]],
    bad: Iterable[Box],
) -> None:
    """Write a block's tile maps (K, side, side), pixel pieces (h, w, 3) and unreadable boxes to *path*, atomically."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for (i, j), maps in tiles.items():
            archive.writestr(f"tile/{i}_{j}", _pack(maps))
        for box, rgb in pixels.items():
            archive.writestr(_entry(box), _pack(rgb))
        archive.writestr("bad", json.dumps(sorted(bad)))


def read_maps(
    path: Path, tiles: Iterable[tuple[int, int]], channels: int, side: int = TILE
) -> dict[tuple[int, int], NDArray[np.uint8]]:
    """Return the maps (channels, side, side) of those *tiles* that have some: the others show only glass."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        there = [(i, j) for i, j in tiles if f"tile/{i}_{j}" in names]
        raw = {(i, j): _CODEC.decode(archive.read(f"tile/{i}_{j}")) for i, j in there}
    return {key: np.frombuffer(value, np.uint8).reshape(channels, side, side) for key, value in raw.items()}


def read_pixels(path: Path, core: Box, window: Box, out: NDArray[np.uint8]) -> list[Box]:
    """Copy the pixels of a block with this *core* that lie in *window* into *out*; return the unreadable boxes."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        for box in pieces(core):
            part = intersect(box, window)
            if is_empty(part) or _entry(box) not in names:
                continue
            raw = np.frombuffer(_CODEC.decode(archive.read(_entry(box))), np.uint8)
            rgb = raw.reshape(box[3] - box[1], box[2] - box[0], 3)
            target = out[part[1] - window[1] : part[3] - window[1], part[0] - window[0] : part[2] - window[0]]
            target[:] = rgb[part[1] - box[1] : part[3] - box[1], part[0] - box[0] : part[2] - box[0]]
        return [(b[0], b[1], b[2], b[3]) for b in from_json(archive.read("bad"))]


def _entry(box: Box) -> str:
    return "rgb/{}_{}_{}_{}".format(*box)


def _pack(array: NDArray[np.uint8]) -> bytes:
    return bytes(_CODEC.encode(np.ascontiguousarray(array)))
