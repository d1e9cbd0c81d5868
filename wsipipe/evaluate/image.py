"""One picture in memory through the same code as a slide: pixels, maps, cells, outlines, and back to a label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.cells.instances import Cells, find_cells
from wsipipe.cells.polygons import trace
from wsipipe.cells.rules import FOREGROUND, TYPE
from wsipipe.geometry import Grid
from wsipipe.infer.blend import blend
from wsipipe.infer.predict import Predictor
from wsipipe.models.checkpoint import ModelCard, Rules
from wsipipe.raster import SlideRaster, slide_grid
from wsipipe.raster.fill import fill_edges
from wsipipe.raster.tiling import TileGrid
from wsipipe.segmentation.prepare import cell_rules
from wsipipe.settings import CellSettings, GridSettings
from wsipipe.slide.memory import ArraySlide
from wsipipe.stain import colours_of, is_glass, normalise, sampled
from wsipipe.units import Size

Image = NDArray[np.uint8]
Labels = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class ImageMaps:
    """What a model says of one picture, before any threshold.

    Attributes
    ----------
    maps : uint8 (K, h, w)
        Blended probabilities times 255, on the working grid.
    names : tuple of str
        Names of the maps.
    grid : Grid
    size : (int, int)
        Width and height of the picture, in its own (base) pixels.
    """

    maps: Image
    names: tuple[str, ...]
    grid: Grid
    size: Size

    def labels(self, rules: Rules, asked: CellSettings | None = None) -> Labels:
        """Return the label map of the cells at the picture's own resolution, int32 (H, W); 0 is background.

        Parameters
        ----------
        rules : Rules
            Of a model, in µm; see :func:`~wsipipe.segmentation.prepare.cell_rules`.
        asked : CellSettings, optional
            What takes the place of the model's rules.
        """
        return self._found(rules, asked)[1]

    @property
    def types(self) -> tuple[str, ...]:
        """Names of the model's cell types."""
        return tuple(name.removeprefix(TYPE) for name in self.names if name.startswith(TYPE))

    def labels_and_types(self, rules: Rules, asked: CellSettings | None = None) -> tuple[Labels, tuple[str, ...]]:
        """Return the label map and the type of labels 1..n; no types from a model without."""
        cells, labels = self._found(rules, asked)
        return labels, tuple(self.types[k] if k >= 0 else "" for k in cells.type) if self.types else ()

    def cells_and_labels(self, rules: Rules) -> tuple[Cells, Labels]:
        """Return the cells on the working grid, and the label map of the same cells."""
        return self._found(rules, None)

    def _found(self, rules: Rules, asked: CellSettings | None) -> tuple[Cells, Labels]:
        in_px = cell_rules(rules, asked or CellSettings(), self.grid)
        box = 0, 0, *self.grid.size
        cells = find_cells(self.maps, self.names, box, box, self.grid.size, in_px)
        foreground = self.maps[self.names.index(FOREGROUND)]
        outlines = trace(cells, foreground, in_px.threshold, self.grid, base_size=self.size)
        return cells, rasterise(outlines, self.size)


def instances_of(
    image: Image,
    mpp: float,
    predictor: Predictor,
    rules: Rules | None = None,
    target_mpp: float | None = None,
    overlap: int = GridSettings.overlap,
) -> Labels:
    """Return the cells of a picture as a label map at its own resolution, int32 (H, W); 0 is background.

    Parameters
    ----------
    image : uint8 (H, W, 3)
        RGB.
    mpp : float
        Its resolution in µm/px.
    predictor : Predictor
    rules : Rules, optional
        How maps become cells; default: the model's.
    target_mpp : float, optional
        Working resolution in µm/px; default: the model's.
    overlap : int
        Of neighbouring tiles, in working-grid px.

    Raises
    ------
    SettingsError
        When the picture is over 2x coarser than the working resolution.
    """
    return maps_of(image, mpp, predictor, target_mpp, overlap).labels(rules or predictor.card.rules)


def maps_of(
    image: Image, mpp: float, predictor: Predictor, target_mpp: float | None = None, overlap: int = GridSettings.overlap
) -> ImageMaps:
    """Return the blended maps of a picture, from which cells follow without another forward pass.

    Parameters as in :func:`instances_of`.
    """
    return maps_of_all([(image, mpp)], predictor, GridSettings(target_mpp, overlap))[0]


def maps_of_all(
    pictures: Sequence[tuple[Image, float]], predictor: Predictor, settings: GridSettings | None = None
) -> list[ImageMaps]:
    """Return the maps of several (image, mpp); their tiles share the predictor's batches."""
    wanted = settings or GridSettings()
    rasters = [raster_of(image, mpp, wanted, predictor.card.mpp) for image, mpp in pictures]
    grids = [TileGrid(raster.grid.size, wanted.overlap) for raster in rasters]
    tiles = [_shown(raster, grid, wanted.stain, predictor.card) for raster, grid in zip(rasters, grids)]
    pixels = [rgb for shown in tiles for rgb in shown.values()]
    maps = iter(predictor.maps(np.stack(pixels))) if pixels else iter(())
    out = []
    for raster, grid, shown in zip(rasters, grids, tiles):
        size = raster.grid.size
        blended = blend((0, 0, *size), grid, {ij: next(maps) for ij in shown}, len(predictor.names))
        out.append(ImageMaps(blended, tuple(predictor.names), raster.grid, raster.slide.size))
    return out


def _shown(raster: SlideRaster, grid: TileGrid, stain: str, card: ModelCard) -> dict[tuple[int, int], Image]:
    """Return the tiles (i, j) of a picture that show more than glass, in the colours that the network sees."""
    read = {(i, j): raster.read(grid.box(i, j)) for j in range(grid.counts[1]) for i in range(grid.counts[0])}
    own = list(read.values())
    colours = colours_of(own[k] for k in sampled(len(own))) if card.colours else None
    change = card.change_for(stain, colours)
    return {ij: normalise(rgb, change) for ij, rgb in read.items() if not is_glass(rgb)}


def raster_of(image: Image, mpp: float, settings: GridSettings, model_mpp: float) -> SlideRaster:
    """Return a picture at the resolution of *settings*, or else of the model."""
    slide = ArraySlide([image], mpp)
    target = settings.target_mpp or model_mpp
    return SlideRaster(slide, slide_grid(slide.info, (mpp, mpp), target, settings.allow_upsample), fingerprint="")


def rasterise(polygons: NDArray[np.object_], size: Size) -> Labels:
    """Return the label map of polygons, int32 (height, width): polygon k has the label k + 1.

    A pixel belongs to the polygon that holds its centre; one on a shared border to the right and lower of the two.
    Should polygons overlap, the smaller wins.

    Parameters
    ----------
    polygons : object array (n,)
        Without holes, in pixels of *size* (pixel centres at halves).
    size : (int, int)
        Width and height.
    """
    labels = np.zeros((size[1], size[0]), np.int32)
    order = np.argsort(-shapely.area(polygons), kind="stable")
    xy, owner = shapely.get_coordinates(shapely.get_exterior_ring(polygons[order]), return_index=True)
    inner = owner[1:] == owner[:-1]
    edges = np.hstack([xy[:-1], xy[1:]])[inner]
    offsets = np.searchsorted(owner[:-1][inner], np.arange(len(order) + 1))
    fill_edges(labels, edges, offsets, (order + 1).astype(np.int32))
    return labels
