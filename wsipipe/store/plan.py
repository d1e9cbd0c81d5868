"""What a tile store will hold, as plain data: made before a pixel is read, and enough to continue or refuse a store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe._version import __version__
from wsipipe.artifacts import digest, plain
from wsipipe.errors import SettingsError
from wsipipe.geometry import Grid, grow, intersect, is_empty
from wsipipe.raster import CHUNK, Raster
from wsipipe.raster.tiling import TILE, TileGrid, pixels_read, select_tiles
from wsipipe.settings import StoreSettings, TissueSettings, determining
from wsipipe.slide.protocol import Level, MppSource, SlideInfo
from wsipipe.tissue import Tissue
from wsipipe.units import Box

SCHEMA = 1
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class StorePlan:
    """What a store will hold, known before a pixel is read.

    Attributes
    ----------
    tiles : TileGrid
    selected : bool array (ny, nx)
        Tiles that will be analysed.
    chunks : bool array (rows, columns)
        512 px squares that they read.
    about : dict
        JSON of everything that determines the content; its digest tells whether a store on disk is this one.
    shard : int
        Side of a shard in grid pixels.
    """

    tiles: TileGrid
    selected: Mask
    chunks: Mask
    about: dict[str, Any]
    shard: int

    @property
    def raw_bytes(self) -> int:
        """Bytes of the stored pixels before compression."""
        return int(self.chunks.sum()) * CHUNK * CHUNK * 3

    @property
    def identity(self) -> str:
        """Digest of all that determines the content."""
        return digest(self.about)

    def coords(self) -> NDArray[np.int64]:
        """Return the top-left corners of the selected tiles in base pixels, int64 (n, 2) as x, y, row-major."""
        corners = self.tiles.boxes()[self.selected][:, :2] * np.array(self.about["grid"]["scale"])
        return np.asarray(np.rint(corners), dtype=np.int64)

    def shards(self) -> list[tuple[int, int]]:
        """Return (column, row) of the shards that hold a chunk, row-major."""
        row_column = np.unique(np.argwhere(self.chunks) // (self.shard // CHUNK), axis=0)
        return [(column, row) for row, column in row_column.tolist()]

    def chunks_of(self, column: int, row: int) -> list[Box]:
        """Return the boxes (grid pixels, clipped to the grid) of the chunks to be stored in one shard."""
        per, whole = self.shard // CHUNK, (0, 0, *self.tiles.size)
        rows, columns = np.nonzero(self.chunks[row * per : (row + 1) * per, column * per : (column + 1) * per])
        corners = zip((columns + column * per) * CHUNK, (rows + row * per) * CHUNK, strict=True)
        return [intersect((int(x), int(y), int(x) + CHUNK, int(y) + CHUNK), whole) for x, y in corners]


def plan_store(
    raster: Raster,
    tissue: Tissue,
    tiles: TileGrid,
    settings: StoreSettings,
    tissue_settings: TissueSettings,
    bounds: Box | None = None,
) -> StorePlan:
    """Return what a store holds: the tiles within ``settings.reach_um`` of *tissue*.

    Parameters
    ----------
    bounds : Box, optional
        Only tiles within ``settings.reach_um`` of this box of base pixels.

    Raises
    ------
    SettingsError
        When the shard is not a multiple of the chunk, or the bounds lie outside the slide.
    """
    reach = math.ceil(settings.reach_um / min(raster.grid.mpp))
    if settings.shard % CHUNK:
        raise SettingsError(f"shard is {settings.shard} px; expected a multiple of {CHUNK} px")
    selected = tissue_tiles(tiles, tissue, raster.grid, reach)
    if bounds is not None:
        selected &= _near(tiles, raster.grid.grid_box(bounds), reach, bounds)
    slide = {key: value for key, value in plain(raster.slide).items() if key != "path"}
    about = {
        "schema": SCHEMA,
        "wsipipe": __version__,
        "fingerprint": raster.fingerprint,
        "slide": slide,
        "grid": plain(raster.grid),
        "tile": TILE,
        "overlap": tiles.overlap,
        "reach_px": reach,
        "codec": settings.codec,
        "shard": settings.shard,
        "tissue_settings": determining(tissue_settings) | {"tissue": tissue.source},
        "tissue": tissue_json(tissue),
        **({"bounds": list(bounds)} if bounds is not None else {}),
    }
    return StorePlan(tiles, selected, pixels_read(tiles, selected, CHUNK), about, settings.shard)


def tissue_tiles(tiles: TileGrid, tissue: Tissue, grid: Grid, reach: int) -> Mask:
    """Return which tiles lie within *reach* grid pixels of *tissue*, bool (ny, nx)."""
    if tissue.source == "none":
        return select_tiles(tiles, None)
    return select_tiles(tiles, lambda boxes: tissue.overlaps(boxes, grid.scale), reach)


def _near(tiles: TileGrid, box: Box, reach: int, bounds: Box) -> Mask:
    """Return which tiles lie within *reach* grid pixels of *box*, bool (ny, nx)."""
    if is_empty(intersect(box, (0, 0, *tiles.size))):
        raise SettingsError(f"--bounds {bounds} lies outside the slide")
    columns, rows = tiles.counts
    near: Mask = np.zeros((rows, columns), np.bool_)
    i0, j0, i1, j1 = tiles.tiles_over(grow(box, reach))
    near[j0:j1, i0:i1] = True
    return near


def tissue_json(tissue: Tissue) -> dict[str, Any]:
    """Return *tissue* as JSON; polygons as lists of rings of (x, y) in base pixels, the outer ring first."""
    rings = [[p.exterior, *p.interiors] for p in tissue.polygons]
    polygons = [[shapely.get_coordinates(ring).tolist() for ring in polygon] for polygon in rings]
    return {
        "source": tissue.source,
        "area_um2": tissue.area_um2,
        "warnings": list(tissue.warnings),
        "polygons": polygons,
    }


def tissue_of(about: dict[str, Any]) -> Tissue:
    """Return the tissue that :func:`tissue_json` wrote."""
    polygons = tuple(shapely.Polygon(shell, holes) for shell, *holes in about["polygons"])
    return Tissue(polygons, about["area_um2"], about["source"], tuple(about["warnings"]))


def grid_of(about: dict[str, Any]) -> Grid:
    """Return the grid that a store's attributes describe."""
    pairs = {name: tuple(about[name]) for name in ("size", "scale", "mpp", "level_scale")}
    return Grid(level=about["level"], **pairs)


def slide_of(about: dict[str, Any], path: str) -> SlideInfo:
    """Return the slide that a store's attributes describe; *path* stands in for the slide file's."""
    levels = tuple(Level(tuple(level["size"]), tuple(level["downsample"])) for level in about["levels"])
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in about.items()}
    fields["mpp_source"] = about["mpp_source"] and MppSource(about["mpp_source"])
    return SlideInfo(**{**fields, "path": path, "levels": levels})
