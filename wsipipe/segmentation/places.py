"""Where on a slide a network is asked for features: at tiles of its tissue, or around its cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsipipe.errors import SettingsError, TileReadError
from wsipipe.formats.parquet import metadata
from wsipipe.raster.chunks import Raster
from wsipipe.raster.tiling import TILE, TileGrid
from wsipipe.raster.unreadable import within
from wsipipe.segmentation.source import Source
from wsipipe.settings import FeatureSettings
from wsipipe.units import Box


@dataclass(frozen=True, eq=False)
class Places:
    """Squares of a slide in the order of their features.

    Attributes
    ----------
    boxes : int64 (n, 4)
        In grid pixels; around a cell at the slide's edge they reach beyond it.
    cell_ids : bytes (n,)
        Of the cells that they lie around, as ASCII; None of tiles.
    """

    boxes: NDArray[np.int64]
    cell_ids: NDArray[np.bytes_] | None = None

    @property
    def of(self) -> str:
        """What they are, in a word."""
        return "tiles" if self.cell_ids is None else "cells"

    @property
    def key(self) -> object:
        """What tells them from others."""
        if self.cell_ids is None:
            return self.boxes.tolist()
        return [self.boxes.tolist(), [name.decode("ascii") for name in self.cell_ids.tolist()]]

    def unreadable(self, met: list[Box], raster: Raster, most: float) -> list[Box]:
        """Return those of the unreadable areas *met* that lie in the squares.

        Raises
        ------
        TileReadError
            When they are more than the share *most*: of the pixels of tiles, or of the cells whose square holds any.
        """
        bad, share = self._unreadable(met, raster) if met else ([], 0.0)
        if share > most:
            what = "pixels of the tiles" if self.cell_ids is None else "cells"
            raise TileReadError(
                f"{raster.slide.path}: {share:.1%} of the {what} cannot be read; expected at most {most:.1%} "
                "(--max-bad-tiles); nothing was written"
            )
        return bad

    def _unreadable(self, met: list[Box], raster: Raster) -> tuple[list[Box], float]:
        if self.cell_ids is None:
            return within(self.boxes, met, raster)
        areas = np.array(met, np.int64)
        squares: Any = shapely.box(*self.boxes.T)
        inner: Any = shapely.box(*(areas + np.array([1, 1, -1, -1])).T)
        area, square = shapely.STRtree(squares).query(inner, "intersects")
        found = [(x0, y0, x1, y1) for x0, y0, x1, y1 in areas[np.unique(area)].tolist()]
        return found, len(np.unique(square)) / max(1, len(self.boxes))


def tiles_in(source: Source, features: FeatureSettings) -> Places:
    """Return the tiles that hold enough tissue."""
    grid = source.raster.grid
    tiles = TileGrid(grid.size, features.overlap).boxes().reshape(-1, 4)
    return Places(source.tissue.chosen(tiles, grid.scale, features.min_tissue))


def around_cells(source: Source, cells: Path) -> Places:
    """Return a square of a tile's size around the centre of every cell of a master file, in the file's order.

    Raises
    ------
    StoreError
        When it is none.
    SettingsError
        When its cells are another slide's.
    """
    about, grid = metadata(cells), source.raster.grid
    if about["fingerprint"] != source.raster.fingerprint:
        raise SettingsError(
            f"--cells {cells}: found on another slide (fingerprints differ); give the file that `wsipipe segment` made "
            "of this one"
        )
    table = pq.read_table(cells, columns=["cell_id", "x", "y"])
    xy = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()]) / np.array(grid.scale)
    corners = np.rint(xy - TILE / 2).astype(np.int64).reshape(-1, 2)
    ids = np.array([str(name).encode("ascii") for name in table["cell_id"].to_pylist()], dtype=np.bytes_)
    return Places(np.concatenate([corners, corners + TILE], axis=1), ids)
