"""Integer arithmetic of tiles and blocks on the working grid: who covers a pixel, who owns a tile.

Tiles are what the network sees: 256 px, or what a plug-in asks for, overlapping, on one grid anchored at the slide's
origin. Blocks are how the work is cut up: disjoint cores that cover the slide. Nothing here reads a file, and no tile
depends on a block.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import SettingsError
from wsipipe.geometry import intersect, is_empty
from wsipipe.units import Box, Size

TILE = 256
"""Side of the square that the network sees, in grid pixels."""


@dataclass(frozen=True)
class TileGrid:
    """The global grid of overlapping tiles; tile (i, j) is column i, row j, and (0, 0) lies at the slide's origin.

    Attributes
    ----------
    size : (int, int)
        Width and height of the slide in grid pixels.
    overlap : int
        Pixels shared by neighbouring tiles, from 0 to half a tile.
    side : int
        Side of a tile in grid pixels.
    """

    size: Size
    overlap: int
    side: int = TILE

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= self.side // 2:
            raise SettingsError(f"overlap is {self.overlap} px; expected 0 to {self.side // 2} px")
        if min(self.size) < 1:
            raise SettingsError(f"the grid is {self.size[0]} x {self.size[1]} px; expected at least one pixel")

    @property
    def stride(self) -> int:
        """Distance of neighbouring tiles in grid pixels."""
        return self.side - self.overlap

    @property
    def counts(self) -> tuple[int, int]:
        """Smallest numbers of columns and rows that cover the slide."""
        nx, ny = (max(1, math.ceil((side - self.overlap) / self.stride)) for side in self.size)
        return nx, ny

    def origin(self, i: int, j: int) -> tuple[int, int]:
        """Return the top-left corner of tile (i, j) in grid pixels."""
        return i * self.stride, j * self.stride

    def box(self, i: int, j: int) -> Box:
        """Return the pixels that tile (i, j) reads; it may stick out of the slide to the right and below."""
        x, y = self.origin(i, j)
        return x, y, x + self.side, y + self.side

    def tiles_over(self, box: Box) -> Box:
        """Return the half-open index range ``(i0, j0, i1, j1)`` of the tiles that overlap *box* (grid pixels)."""
        (x0, y0, x1, y1), (nx, ny) = box, self.counts
        if is_empty(box):
            return 0, 0, 0, 0
        first = (x0 - self.side) // self.stride + 1, (y0 - self.side) // self.stride + 1
        last = (x1 - 1) // self.stride + 1, (y1 - 1) // self.stride + 1
        return intersect((*first, *last), (0, 0, nx, ny))

    def boxes(self) -> NDArray[np.int64]:
        """Return the boxes of all tiles, int64 (ny, nx, 4), in grid pixels."""
        nx, ny = self.counts
        x, y = np.meshgrid(np.arange(nx, dtype=np.int64) * self.stride, np.arange(ny, dtype=np.int64) * self.stride)
        return np.stack([x, y, x + self.side, y + self.side], axis=-1)

    def cores(self) -> NDArray[np.int64]:
        """Return the part of each tile where it counts most, int64 (ny, nx, 4), in grid pixels: they cover the slide.

        Neighbours share their overlap equally; the outermost tiles reach to the slide's edge.
        """
        cores, half = self.boxes(), self.overlap // 2
        cores[:, 1:, 0] += half
        cores[1:, :, 1] += half
        cores[..., 2:] += half - self.overlap
        cores[:, -1, 2], cores[-1, :, 3] = self.size
        return cores

    def centres(self) -> NDArray[np.int64]:
        """Return the pixel at the centre of each tile, clamped into the slide: int64 (ny, nx, 2) as x, y."""
        return np.asarray(np.minimum(self.boxes()[..., :2] + self.side // 2, np.array(self.size) - 1), dtype=np.int64)


@dataclass(frozen=True)
class Block:
    """One unit of work: its number in row-major order and its core, clipped to the slide, in grid pixels."""

    index: int
    core: Box


@dataclass(frozen=True)
class BlockGrid:
    """Disjoint blocks that cover the slide.

    Attributes
    ----------
    size : (int, int)
        Width and height of the slide in grid pixels.
    block : int
        Side of a block in grid pixels.
    shift : (int, int)
        Moves the borders between blocks: they lie at ``shift + k * block``.
    """

    size: Size
    block: int
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.block < 1:
            raise SettingsError(f"block is {self.block} px; expected at least 1 px")

    def edges(self, axis: int) -> list[int]:
        """Return the borders along *axis* (0: x, 1: y), from 0 to the slide's side."""
        inner = range(self.shift[axis] % self.block, self.size[axis], self.block)
        return [0, *(edge for edge in inner if edge > 0), self.size[axis]]

    def blocks(self) -> list[Block]:
        """Return all blocks in row-major order."""
        xs, ys = self.edges(0), self.edges(1)
        cores = [(x0, y0, x1, y1) for y0, y1 in itertools.pairwise(ys) for x0, x1 in itertools.pairwise(xs)]
        return [Block(index, core) for index, core in enumerate(cores)]

    def owner(self, xy: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of the block whose core holds each pixel *xy* (..., 2), which lies inside the slide."""
        xs, ys = (np.asarray(self.edges(axis)) for axis in (0, 1))
        column = np.searchsorted(xs, xy[..., 0], side="right") - 1
        row = np.searchsorted(ys, xy[..., 1], side="right") - 1
        return np.asarray(row * (len(xs) - 1) + column, dtype=np.int64)


def blocks(size: Size, block: int, shift: tuple[int, int] = (0, 0)) -> list[Block]:
    """Return the blocks that cover a slide of *size*, row-major; see :class:`BlockGrid`."""
    return BlockGrid(size, block, shift).blocks()


def tile_owners(tiles: TileGrid, grid: BlockGrid) -> NDArray[np.int64]:
    """Return the block index that owns each tile, int64 (ny, nx): the one whose core holds the tile's centre."""
    return grid.owner(tiles.centres())


Overlaps = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Answers for boxes int64 (n, 4) in grid pixels which of them overlap the tissue, bool (n,)."""


def select_tiles(tiles: TileGrid, overlaps: Overlaps | None, reach: int = 0) -> NDArray[np.bool_]:
    """Return which tiles are needed, bool (ny, nx): those whose core overlaps tissue dilated by *reach* grid pixels.

    Every pixel that near to tissue lies in the core of a needed tile. *overlaps* is asked once, for every core grown by
    *reach*; None (no tissue map) selects every tile.
    """
    nx, ny = tiles.counts
    if overlaps is None:
        return np.ones((ny, nx), dtype=bool)
    grown = tiles.cores().reshape(-1, 4) + np.array([-reach, -reach, reach, reach])
    return overlaps(grown).reshape(ny, nx)


def pixels_read(tiles: TileGrid, selected: NDArray[np.bool_], cell: int) -> NDArray[np.bool_]:
    """Return which squares of *cell* px of the slide some selected tile reads, bool (rows, columns).

    Tiles that stick out of the slide are reflected there, so the squares they mirror from count as read too.
    """
    shape = math.ceil(tiles.size[1] / cell), math.ceil(tiles.size[0] / cell)
    read = np.zeros(shape, dtype=bool)
    for x0, y0, x1, y1 in tiles.boxes()[selected]:
        left, right = _mirrored_span(x0, x1, tiles.size[0])
        top, bottom = _mirrored_span(y0, y1, tiles.size[1])
        read[top // cell : (bottom - 1) // cell + 1, left // cell : (right - 1) // cell + 1] = True
    return read


def _mirrored_span(start: int, stop: int, side: int) -> tuple[int, int]:
    """Return the smallest span inside ``[0, side)`` that holds ``[start, stop)`` and its reflection at the far edge."""
    return max(0, min(start, 2 * side - 1 - stop)), min(stop, side)
