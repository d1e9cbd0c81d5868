"""Write a tiled pyramidal BigTIFF in one pass and little memory; empty tiles share one compressed tile."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsipipe.units import Size

TILE = 256
SHORT, LONG, RATIONAL, ASCII, LONG8 = 3, 4, 5, 2, 16
FORMATS = {SHORT: "H", LONG: "I", RATIONAL: "II", ASCII: "s", LONG8: "Q"}
REDUCED = 1

Values = Sequence[int] | bytes | NDArray[np.uint64]


@dataclass(frozen=True)
class Codec:
    """How tiles are compressed: JPEG of a quality, or (quality 0) deflate."""

    quality: int

    def encode(self, rgb: NDArray[np.uint8]) -> bytes:
        """Return a (h, w, 3) tile compressed."""
        if not self.quality:
            return zlib.compress(rgb.tobytes(), 6)
        out = io.BytesIO()
        Image.fromarray(rgb).save(out, "JPEG", quality=self.quality, subsampling=0)
        return out.getvalue()

    def tags(self) -> list[tuple[int, int, Values]]:
        """Return the TIFF tags that tell how to decode."""
        jpeg = bool(self.quality)
        tags: list[tuple[int, int, Values]] = [(259, SHORT, [7 if jpeg else 8]), (262, SHORT, [6 if jpeg else 2])]
        return [*tags, (530, SHORT, [1, 1])] if jpeg else tags


@dataclass
class LevelTiles:
    """Where the tiles of one level are in the file, row by row."""

    size: Size
    offsets: NDArray[np.uint64] = field(init=False)
    counts: NDArray[np.uint64] = field(init=False)

    def __post_init__(self) -> None:
        self.across, self.down = -(-self.size[0] // TILE), -(-self.size[1] // TILE)
        self.offsets = np.zeros(self.across * self.down, np.uint64)
        self.counts = np.zeros(self.across * self.down, np.uint64)


class PyramidWriter:
    """A pyramid whose tiles are drawn on demand, depth first, each level averaged from the one below.

    Parameters
    ----------
    file : binary file, empty
    sizes : list of (width, height)
        Levels, finest first, each *factor* times smaller than the one before (rounded down).
    factor : int
    codec : Codec
    glass : (int, int, int)
        Colour of empty tiles and of the padding of tiles at the edge.
    """

    def __init__(
        self, file: IO[bytes], sizes: list[Size], factor: int, codec: Codec, glass: tuple[int, int, int]
    ) -> None:
        self._file, self._factor, self._codec = file, factor, codec
        self.levels = [LevelTiles(size) for size in sizes]
        self._glass = np.broadcast_to(np.array(glass, np.uint8), (TILE, TILE, 3))
        file.write(b"II" + struct.pack("<HHHQ", 43, 8, 0, 0))
        self.blank = self._append(codec.encode(self._glass.copy()))
        for level in self.levels:
            level.offsets[:], level.counts[:] = self.blank

    def draw(
        self,
        picture: Callable[[tuple[int, int, int, int]], NDArray[np.uint8] | None],
        progress: Callable[[float], None] = lambda share: None,
    ) -> None:
        """Draw all tiles. *picture* returns (h, w, 3) pixels of a box of level 0, or None where it is all glass."""
        top = len(self.levels) - 1
        tiles = self.levels[top]
        for n in range(tiles.across * tiles.down):
            self._tile(top, n % tiles.across, n // tiles.across, picture)
            progress((n + 1) / (tiles.across * tiles.down))

    def _tile(
        self,
        level: int,
        i: int,
        j: int,
        picture: Callable[[tuple[int, int, int, int]], NDArray[np.uint8] | None],
    ) -> NDArray[np.uint8] | None:
        """Write tile (i, j) of *level* and all below it; return its pixels, None if all glass or outside."""
        tiles = self.levels[level]
        if i >= tiles.across or j >= tiles.down:
            return None
        width, height = min(TILE, tiles.size[0] - i * TILE), min(TILE, tiles.size[1] - j * TILE)
        drawn = self._drawn(level, i, j, width, height, picture)
        if drawn is None:
            return None
        pixels = self._glass.copy()
        pixels[:height, :width] = drawn[:height, :width]
        index = j * tiles.across + i
        tiles.offsets[index], tiles.counts[index] = self._append(self._codec.encode(pixels))
        return pixels

    def _drawn(
        self,
        level: int,
        i: int,
        j: int,
        width: int,
        height: int,
        picture: Callable[[tuple[int, int, int, int]], NDArray[np.uint8] | None],
    ) -> NDArray[np.uint8] | None:
        if level == 0:
            return picture((i * TILE, j * TILE, i * TILE + width, j * TILE + height))
        f = self._factor
        below = [self._tile(level - 1, i * f + k % f, j * f + k // f, picture) for k in range(f * f)]
        if all(tile is None for tile in below):
            return None
        full = [self._glass if tile is None else tile for tile in below]
        mosaic = np.concatenate([np.concatenate(full[r * f : r * f + f], axis=1) for r in range(f)], axis=0)
        means = mosaic.reshape(TILE, f, TILE, f, 3).astype(np.float32).mean(axis=(1, 3))
        rounded: NDArray[np.uint8] = np.rint(means).astype(np.uint8)
        return rounded

    def _append(self, data: bytes) -> tuple[int, int]:
        offset = self._file.seek(0, io.SEEK_END)
        self._file.write(data + b"\0" * (len(data) % 2))
        return offset, len(data)

    def finish(
        self, description: str, mpp: float | None, *, subfile: int = REDUCED, overview: NDArray[np.uint8] | None = None
    ) -> None:
        """Write the directories.

        Parameters
        ----------
        description : str
            ImageDescription of the first directory, ASCII; empty for none.
        mpp : float or None
            Resolution of level 0 for the TIFF resolution tags; None for none.
        subfile : int
            NewSubfileType of the lower levels.
        overview : uint8 array (h, w, 3), optional
            Written as the second directory, in one strip: Aperio's thumbnail, Leica's macro image.
        """
        directories = [self._directory(tiles, subfile if n else 0) for n, tiles in enumerate(self.levels)]
        if description:
            directories[0].append((270, ASCII, description.encode("ascii") + b"\0"))
        if mpp:
            per_cm = Fraction(10_000 / mpp).limit_denominator(10_000)
            directories[0] += [(tag, RATIONAL, [*per_cm.as_integer_ratio()]) for tag in (282, 283)]
            directories[0].append((296, SHORT, [3]))
        if overview is not None:
            directories.insert(1, self._strip(overview))
        pointer = 8
        for entries in directories:
            pointer = self._write_directory(sorted(entries, key=lambda e: e[0]), pointer)

    def _common(self, size: Size, subfile: int) -> list[tuple[int, int, Values]]:
        return [
            (254, LONG, [subfile]),
            (256, LONG, [size[0]]),
            (257, LONG, [size[1]]),
            (258, SHORT, [8, 8, 8]),
            (277, SHORT, [3]),
            (284, SHORT, [1]),
            (305, ASCII, b"wsipipe\0"),
            *self._codec.tags(),
        ]

    def _directory(self, tiles: LevelTiles, subfile: int) -> list[tuple[int, int, Values]]:
        places: list[tuple[int, int, Values]] = [(324, LONG8, tiles.offsets), (325, LONG8, tiles.counts)]
        return [*self._common(tiles.size, subfile), (322, LONG, [TILE]), (323, LONG, [TILE]), *places]

    def _strip(self, rgb: NDArray[np.uint8]) -> list[tuple[int, int, Values]]:
        offset, count = self._append(self._codec.encode(rgb))
        size = rgb.shape[1], rgb.shape[0]
        return [*self._common(size, 0), (273, LONG8, [offset]), (278, LONG, [size[1]]), (279, LONG8, [count])]

    def _write_directory(self, entries: list[tuple[int, int, Values]], pointer: int) -> int:
        """Append a directory, store its place at *pointer*, and return where its own pointer to the next one is."""
        rows = []
        for tag, kind, values in entries:
            data = _pack(kind, values)
            count = len(values) // (2 if kind == RATIONAL else 1)
            inline = data.ljust(8, b"\0") if len(data) <= 8 else struct.pack("<Q", self._append(data)[0])
            rows.append(struct.pack("<HHQ", tag, kind, count) + inline)
        place, _ = self._append(struct.pack("<Q", len(rows)) + b"".join(rows) + struct.pack("<Q", 0))
        self._file.seek(pointer)
        self._file.write(struct.pack("<Q", place))
        return place + 8 + 20 * len(rows)


def _pack(kind: int, values: Values) -> bytes:
    if isinstance(values, bytes):
        return values
    if isinstance(values, np.ndarray):
        return values.astype("<u8").tobytes()
    return struct.pack("<" + FORMATS[kind][0] * len(values), *values)


def level_sizes(size: Size, factor: int, smallest: int = 512) -> list[Size]:
    """Return level sizes, finest first, until the longer side is at most *smallest*; at most 8 levels."""
    sizes = [size]
    while max(sizes[-1]) > smallest and len(sizes) < 8 and min(size) >= factor ** len(sizes):
        scale = factor ** len(sizes)
        sizes.append((size[0] // scale, size[1] // scale))
    return sizes
