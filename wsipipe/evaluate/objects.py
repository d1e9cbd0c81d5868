"""One picture in memory through a plug-in: the same tiles, stitching and outlines as of a slide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsipipe.cells.instances import Cells
from wsipipe.cells.polygons import trace
from wsipipe.cells.rules import TYPE
from wsipipe.evaluate.image import Image, ImageMaps, Labels, maps_of_all, raster_of, rasterise
from wsipipe.geometry import Grid
from wsipipe.infer.adapted import AdaptedPredictor
from wsipipe.labels import Annotated
from wsipipe.models.checkpoint import Rules
from wsipipe.plugins.levels import levels_of
from wsipipe.plugins.opening import AnyPredictor
from wsipipe.plugins.predictor import PluginPredictor
from wsipipe.plugins.stitch import BAND_UM, stitch, tiling
from wsipipe.raster import SlideRaster
from wsipipe.raster.tiling import TileGrid
from wsipipe.segmentation.prepare import cell_rules
from wsipipe.settings import CellSettings, GridSettings
from wsipipe.stain import is_glass, sampled
from wsipipe.units import Size

IMAGES_AT_ONCE = 16
"""At most so many images share a pass through the network."""


@dataclass(frozen=True, eq=False)
class ImageObjects:
    """What a plug-in found in one picture; offers what :class:`wsipipe.evaluate.image.ImageMaps` does.

    Attributes
    ----------
    tiles : (i, j) -> uint8 (K, side, side)
        See :func:`wsipipe.plugins.stitch.packed`.
    names : tuple of str
    tiling : TileGrid
    grid : Grid
    size : (int, int)
        Width and height of the picture, in its own (base) pixels.
    """

    tiles: Mapping[tuple[int, int], Image]
    names: tuple[str, ...]
    tiling: TileGrid
    grid: Grid
    size: Size

    def labels(self, rules: Rules, asked: CellSettings | None = None) -> Labels:
        """Return the label map of the cells at the picture's own resolution, int32 (H, W); 0 is background."""
        return self._found(rules, asked)[1]

    def labels_and_types(self, rules: Rules, asked: CellSettings | None = None) -> tuple[Labels, tuple[str, ...]]:
        """Return the label map and the type of labels 1..n; no types from a plug-in without."""
        cells, labels = self._found(rules, asked)
        types = tuple(name.removeprefix(TYPE) for name in self.names if name.startswith(TYPE))
        return labels, tuple(types[k] if k >= 0 else "" for k in cells.type) if types else ()

    def _found(self, rules: Rules, asked: CellSettings | None) -> tuple[Cells, Labels]:
        in_px = cell_rules(rules, asked or CellSettings(), self.grid)
        box, band = (0, 0, *self.grid.size), BAND_UM / self.grid.mpp[0]
        cells, foreground = stitch(box, self.tiling, self.tiles, self.names, box, in_px, band)
        return cells, rasterise(trace(cells, foreground, in_px.threshold, self.grid, base_size=self.size), self.size)


def objects_of_all(
    pictures: Sequence[tuple[Image, float]], predictor: PluginPredictor, settings: GridSettings
) -> list[ImageObjects]:
    """Return what a plug-in finds in each of several (image, mpp)."""
    rasters = [raster_of(image, mpp, settings, predictor.card.mpp) for image, mpp in pictures]
    return [_objects_of(raster, predictor) for raster in rasters]


def _objects_of(raster: SlideRaster, predictor: PluginPredictor) -> ImageObjects:
    rules = cell_rules(predictor.card.rules, CellSettings(), raster.grid)
    side, overlap = tiling(predictor.looks, rules, raster.grid.mpp[0])
    grid = TileGrid(raster.grid.size, overlap, side)
    columns, rows = grid.counts
    read = {(i, j): raster.read(grid.box(i, j)) for j in range(rows) for i in range(columns)}
    seen = list(read.values())
    levels = levels_of((seen[k] for k in sampled(len(seen))), predictor.looks.percentiles)
    shown = {key: rgb for key, rgb in read.items() if not is_glass(rgb)}
    maps = predictor.maps(np.stack(list(shown.values())), levels) if shown else ()
    return ImageObjects(dict(zip(shown, maps)), predictor.names, grid, raster.grid, raster.slide.size)


def predicted(
    images: list[Annotated], predictor: AnyPredictor, settings: GridSettings
) -> Iterator[tuple[Annotated, ImageMaps | ImageObjects]]:
    """Yield every image with what was found in it; a few images at a time share the network's batches."""
    alone = isinstance(predictor, AdaptedPredictor)  # it is trained on one image at a time
    step = 1 if alone else max(1, min(IMAGES_AT_ONCE, predictor.batch))
    for start in range(0, len(images), step):
        group = images[start : start + step]
        pictures = [(a.image, a.mpp) for a in group]
        if isinstance(predictor, PluginPredictor):
            yield from zip(group, objects_of_all(pictures, predictor, settings), strict=True)
        else:
            yield from zip(group, maps_of_all(pictures, predictor, settings), strict=True)
