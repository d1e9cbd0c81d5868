"""Reading a tile store: the same pixels as the slide, without the slide."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from wsipipe.artifacts import digest, from_json
from wsipipe.errors import StoreError, in_words
from wsipipe.geometry import intersect
from wsipipe.raster import CHUNK, ChunkRaster, Pixels, Raster, open_slide_raster, slide_grid
from wsipipe.raster.tiling import TileGrid, pixels_read
from wsipipe.settings import SlideSettings
from wsipipe.store.plan import SCHEMA, Mask, grid_of, slide_of, tissue_of
from wsipipe.tissue import Tissue
from wsipipe.units import Pair

LATER = ("identity", "complete", "bad", "shard_files")
"""Attributes that are no part of what a store was asked to hold, of which ``identity`` is the digest."""


class StoreRaster(ChunkRaster):
    """The raster of a tile store. Pixels that no selected tile reads have the background colour.

    Attributes
    ----------
    tile_grid : TileGrid
        The tiles that the store was made for.
    selected : bool array (ny, nx)
        Which of them.
    """

    def __init__(self, path: str | Path, cached_chunks: int = 64) -> None:
        self.path = os.path.abspath(path)
        about = checked_about(Path(self.path))
        whole = about["shard_files"]
        if missing := whole - shard_files(Path(self.path)):  # Zarr would read them as blank
            raise StoreError(
                f"{self.path}: {missing} of its {whole} files of pixels are missing; copy it again, or make it again "
                "with `wsipipe tile`"
            )
        with whole_store(self.path):
            slide = slide_of(about["slide"], self.path)
            super().__init__(grid_of(about["grid"]), slide, about["fingerprint"], cached_chunks)
            self.about = about
            self.tile_grid = TileGrid(self.grid.size, about["overlap"])
            self._bad = {(int(a), int(b), int(c), int(d)) for a, b, c, d in about["bad"]}
            self._open()

    def _open(self) -> None:
        group: Any = zarr.open_group(self.path, mode="r")
        self._pixels = group["pixels"]
        self.selected: Mask = np.asarray(group["selected"])
        self._stored: Mask = np.asarray(group["chunks"])
        width, height = self.grid.size
        if (self._pixels.shape, self._pixels.dtype) != ((height, width, 3), np.uint8):
            raise ValueError(f"pixels are {self._pixels.dtype} {self._pixels.shape}")
        if not np.array_equal(self._stored, pixels_read(self.tile_grid, self.selected, CHUNK)):
            raise ValueError("the squares stored are not those that its tiles read")

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_pixels": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._open()

    def load(self, column: int, row: int) -> Pixels:
        """Return one chunk; one that is not stored has the background colour."""
        x0, y0 = column * CHUNK, row * CHUNK
        x0, y0, x1, y1 = intersect((x0, y0, x0 + CHUNK, y0 + CHUNK), (0, 0, *self.grid.size))
        if self._stored[row, column]:
            with whole_store(f"{self.path}, pixels {x0},{y0},{x1},{y1}"):
                return np.asarray(self._pixels[y0:y1, x0:x1])
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        out[:] = self.slide.background
        return out

    def require(self, tiles: TileGrid, selected: Mask) -> None:
        """Raise :class:`~wsipipe.errors.StoreError` when *selected* tiles read pixels that were not stored."""
        if tiles.size != self.grid.size:
            raise StoreError(f"{self.path}: holds {self.grid.size} px; expected {tiles.size} px")
        missing = int((pixels_read(tiles, selected, CHUNK) & ~self._stored).sum())
        if missing:
            bounds = self.about.get("bounds")
            only = f" (it holds --bounds {','.join(map(str, bounds))})" if bounds else ""
            raise StoreError(
                f"{self.path}: {missing} squares of {CHUNK} px that are asked for were not stored{only}; make the "
                "store again with `wsipipe tile` and the tissue, bounds and overlap that you want"
            )


@contextlib.contextmanager
def whole_store(where: str) -> Iterator[None]:
    """Turn what reading a damaged store raises into one line."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise StoreError(
            f"{where}: the store is damaged ({in_words(error)[:200]}); copy it again, or make it again "
            "with `wsipipe tile`"
        ) from error


def shard_files(path: Path) -> int:
    """Return how many files hold pixels of the store at *path*."""
    return sum(file.is_file() for file in (path / "pixels" / "c").rglob("*"))


def is_store(path: str | Path) -> bool:
    """Whether *path* is a folder with the attributes of a tile store (complete or not)."""
    return bool(read_about(Path(path)))


class TileStore(NamedTuple):
    """An open tile store: pixels and tissue."""

    raster: StoreRaster
    tissue: Tissue

    @property
    def base_mpp(self) -> Pair:
        """Resolution of the slide's level 0 in µm/px."""
        (mx, my), (sx, sy) = self.raster.grid.mpp, self.raster.grid.scale
        return self.raster.slide.mpp or (mx / sx, my / sy)


def open_store(path: str | Path) -> TileStore:
    """Return the content of the store at *path*.

    Raises
    ------
    StoreError
        When it is not a complete tile store of this version's schema.
    """
    raster = StoreRaster(path)
    with whole_store(str(path)):
        return TileStore(raster, tissue_of(raster.about["tissue"]))


def open_raster(
    path: str | Path, settings: SlideSettings, target_mpp: float | None, allow_upsample: bool = False
) -> Raster:
    """Return the raster at *target_mpp* µm/px of a slide, or of a store that ``wsipipe tile`` made (None: as it is).

    Raises
    ------
    StoreError
        When the store is not complete, or was made at another resolution.
    SlideError, SettingsError
        As :func:`~wsipipe.raster.open_slide_raster`.
    """
    if not is_store(path):
        return open_slide_raster(path, settings, target_mpp, allow_upsample)
    raster = StoreRaster(path)
    stated = (settings.mpp, settings.mpp) if settings.mpp else raster.slide.mpp
    if stated is None or target_mpp is None:
        return raster
    wanted = slide_grid(raster.slide, stated, target_mpp, allow_upsample)
    if wanted != raster.grid:
        raise StoreError(
            f"{path}: was made at {raster.grid.mpp[0]:.4g} µm/px, level {raster.grid.level}; expected what a working "
            f"resolution of {target_mpp:g} µm/px gives: make it again with `wsipipe tile --target-mpp {target_mpp:g}`"
        )
    return raster


def checked_about(path: Path) -> dict[str, Any]:
    """Return the attributes of a complete store at *path*."""
    about = read_about(path)
    if not about:
        raise StoreError(f"{path}: not a tile store; expected a folder made by `wsipipe tile`")
    if about["schema"] != SCHEMA:
        raise StoreError(f"{path}: schema {about['schema']} is not known here; expected {SCHEMA}: make it again")
    if about.get("complete") is not True:
        raise StoreError(f"{path}: unfinished; run the same `wsipipe tile` command again to complete it")
    content = {key: value for key, value in about.items() if key not in LATER}
    if digest(content) != about.get("identity") or not isinstance(about.get("shard_files"), int):
        raise StoreError(f"{path}: its attributes were changed or damaged; copy it again, or make it again")
    return about


def read_about(path: Path) -> dict[str, Any]:
    """Return what a store says of itself, {} when *path* is not one."""
    try:
        attributes = from_json((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    about = attributes.get("wsipipe", {}) if isinstance(attributes, dict) else {}
    return about if isinstance(about, dict) and "schema" in about else {}
