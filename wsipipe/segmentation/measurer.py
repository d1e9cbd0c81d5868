"""Measuring cells whose outlines are known: paint them, read the pixels under them, measure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from wsipipe.cells import texture
from wsipipe.cells.compartments import compartment_names, compartment_stains
from wsipipe.cells.context import Crowd, means, rings
from wsipipe.cells.measure import MEASURES, measure, stain_names
from wsipipe.formats.windows import SIDES, Windows, paint
from wsipipe.geometry import grow, intersect
from wsipipe.quality.map import QualityMap
from wsipipe.raster import Raster
from wsipipe.settings import MeasureSettings
from wsipipe.stain.unmix import HE, StainVectors
from wsipipe.units import Box

SIDE = 2048
"""Cells are measured in squares of about this many grid pixels."""
CENTRE = ("x", "y")
FROM_OUTLINE = ("x", "y", "area_um2", "perimeter_um", "solidity")
"""What is known of a cell too small to hold a pixel's centre."""

Columns = dict[str, NDArray[np.float64]]
Own = tuple[str, list[str]]
"""Column that holds nuclei, and identities of the cells of a square."""


@dataclass(frozen=True, eq=False)
class Painted:
    """Cells of a window as pixels; see :class:`wsipipe.cells.measure.LabelledCells`."""

    label_image: NDArray[np.int32]
    window: Box
    sums: NDArray[np.int64]


def measured_names(settings: MeasureSettings, vectors: StainVectors) -> list[str]:
    """Return the names of the measurements that *settings* ask for, on a slide with the stains *vectors*."""
    radius = f"{settings.neighbours_um:g}"
    extra = {
        "texture": [f"texture_{name}" for name in texture.NAMES],
        "neighbours": ["nearest_um", f"neighbours_{radius}um"],
        "ring": [f"ring_{key}_od_mean" for key in vectors.keys],
        "stains": compartment_names(vectors),
        "quality": ["quality", "blur_um"],
    }
    standard = dict.fromkeys((*MEASURES, *stain_names(vectors)))
    return [*standard, *(name for kind in settings.added for name in extra[kind])]


class Measurer:
    """Measures the cells of a master file on a raster, square by square.

    Parameters
    ----------
    raster : Raster
    settings : MeasureSettings
    windows : Windows
        The master file, asked for the other cells around a ring.
    crowd : Crowd or None
        All centres, when neighbours are asked for.
    vectors : StainVectors
        Stains of the slide.
    quality : QualityMap or None
        What is wrong with the slide, when that is asked for.
    """

    def __init__(
        self,
        raster: Raster,
        settings: MeasureSettings,
        windows: Windows,
        crowd: Crowd | None,
        vectors: StainVectors = HE,
        quality: QualityMap | None = None,
    ) -> None:
        self._quality = quality
        self.raster, self.settings, self.vectors = raster, settings, vectors
        self._windows, self._crowd = windows, crowd
        self._ring = max(1, round(settings.ring_um / math.sqrt(raster.grid.um2_per_px)))

    @property
    def names(self) -> list[str]:
        """Names of the measurements that are made."""
        return measured_names(self.settings, self.vectors)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return *schema* with a column for every measurement."""
        for name in self.names:
            if name not in schema.names:
                schema = schema.append(pa.field(name, pa.float64() if name in CENTRE else pa.float32()))
        return schema

    def table(self, table: pa.Table) -> pa.Table:
        """Return *table* with its measurements made anew."""
        column = "nucleus" if "nucleus" in table.schema.names else "geometry"
        polygons = shapely.from_wkb(table[column].to_numpy())
        found: Columns = {name: np.full(len(polygons), np.nan) for name in self.names}
        for rows in self._squares(table):
            whole = shapely.from_wkb(table["geometry"].take(rows).to_numpy()) if column == "nucleus" else None
            own = column, table["cell_id"].take(rows).to_pylist()
            for name, values in self._measured(polygons[rows], whole, own).items():
                found[name][rows] = values
        for name, values in found.items():
            data = pa.array(values, pa.float64()) if name in CENTRE else pa.array(values.astype(np.float32))
            place = table.schema.get_field_index(name)
            table = table.append_column(name, data) if place < 0 else table.set_column(place, name, data)
        return table

    def _squares(self, table: pa.Table) -> Iterator[NDArray[np.int64]]:
        """Yield the rows of cells that lie in one square."""
        boxes = table["bbox"].combine_chunks()
        x0, y0, x1, y1 = (boxes.field(side).to_numpy().astype(np.float64) for side in SIDES)
        (sx, sy) = self.raster.grid.scale
        keys = np.stack([(y0 + y1) / 2 / sy // SIDE, (x0 + x1) / 2 / sx // SIDE], axis=1)
        _, square = np.unique(keys, axis=0, return_inverse=True)
        for k in range(int(square.max(initial=-1)) + 1):
            yield np.flatnonzero(square.ravel() == k)

    def _measured(self, polygons: NDArray[np.object_], whole: NDArray[np.object_] | None, own: Own) -> Columns:
        """Return the measurements of the cells of one square: their nuclei, and *whole* cells where they are known."""
        grid, count = self.raster.grid, len(polygons)
        x0, y0, x1, y1 = shapely.total_bounds(polygons if whole is None else whole).tolist()
        window = intersect(grow(grid.grid_box((x0, y0, x1, y1)), 2 * self._ring + 2), (0, 0, *grid.size))
        cells = painted(polygons, window, grid.scale)
        rgb = self.raster.read(window)
        found = measure(cells, polygons, rgb, grid, self.vectors)
        empty = np.bincount(cells.label_image.ravel(), minlength=count + 1)[1:] == 0
        for name in (name for name in found if name not in FROM_OUTLINE):
            found[name][empty] = np.nan
        if "neighbours" in self.settings.added and self._crowd is not None:
            base = np.array(grid.mpp) / grid.scale
            xy_um = np.column_stack([found["x"], found["y"]]) * base
            found |= self._named("neighbours", np.column_stack(self._crowd.neighbours(xy_um, self._radius)))
        if "quality" in self.settings.added and self._quality is not None:
            kinds, blur = self._quality.at(np.column_stack([found["x"], found["y"]]))
            found |= {"quality": kinds.astype(np.float64), "blur_um": blur.astype(np.float64)}
        if {"texture", "ring", "stains"} & set(self.settings.added):
            found |= self._pictured(cells, rgb, whole, own)
        return found

    @property
    def _radius(self) -> float:
        return self.settings.neighbours_um

    def _pictured(self, cells: Painted, rgb: NDArray[np.uint8], outer: NDArray[np.object_] | None, own: Own) -> Columns:
        """Return texture, ring and compartments of the cells of one square."""
        stains, count, found = self.vectors.amounts(rgb), len(cells.sums), Columns()
        added = set(self.settings.added)
        if "texture" in added:
            nuclear = self.vectors.keys.index("hematoxylin") if "hematoxylin" in self.vectors.keys else 0
            numbers = texture.haralick(cells.label_image, stains[..., nuclear], self.settings.grey_levels, count)
            found |= self._named("texture", numbers)
        if not {"ring", "stains"} & added:
            return found
        everyone, place = self._everyone(cells, own)
        nuclei, ring = place[everyone], place[rings(everyone, everyone > 0, self._ring, len(place) - 1)]
        if "ring" in added:
            found |= self._named("ring", means(ring, stains, count))
        if "stains" in added:
            if outer is not None:
                whole = painted(outer, cells.window, self.raster.grid.scale).label_image
                ring = np.where(everyone > 0, 0, whole).astype(np.int32)
            numbers = compartment_stains(nuclei, ring, stains, count)
            found |= dict(zip(compartment_names(self.vectors), numbers.T))
        return found

    def _everyone(self, cells: Painted, own: Own) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return all cells of the window, also of other squares, as labels, and the number of each among its own.

        They are painted in the order of the file, whatever the square, so that no ring depends on where squares lie.
        """
        column, ids = own
        mine = {id_: k for k, id_ in enumerate(ids, 1)}
        shapes, numbers = [np.zeros(0, np.object_)], [0]
        for _, table in self._windows.over(self.raster.grid.base_box(cells.window), [column, "cell_id"]):
            shapes.append(shapely.from_wkb(table[column].to_numpy()))
            numbers += [mine.get(id_, 0) for id_ in table["cell_id"].to_pylist()]
        return painted(np.concatenate(shapes), cells.window, self.raster.grid.scale).label_image, np.array(
            numbers, np.int32
        )

    def _named(self, kind: str, values: NDArray[np.float64]) -> Columns:
        prefixes = {"texture": ("texture_",), "neighbours": ("nearest_", "neighbours_"), "ring": ("ring_",)}
        return {name: values[:, k] for k, name in enumerate(n for n in self.names if n.startswith(prefixes[kind]))}


def painted(polygons: NDArray[np.object_], window: Box, scale: tuple[float, float]) -> Painted:
    """Return *polygons* (base pixels) as labels 1, 2, ... of *window* (grid pixels), with sums of their pixels.

    A cell that holds no pixel's centre, or is hidden by others, counts as the pixel at its centroid.
    """
    x0, y0, x1, y1 = window
    labels = np.zeros((y1 - y0, x1 - x0), np.int32)
    paint(labels, polygons, np.arange(1, len(polygons) + 1, dtype=np.int32), (x0, y0), scale)
    rows, columns = np.nonzero(labels)
    owner = labels[rows, columns] - 1
    weights = (np.ones(len(owner)), columns + x0, rows + y0)
    sums = np.stack([np.bincount(owner, weights=w, minlength=len(polygons)) for w in weights], axis=1)
    none = sums[:, 0] == 0
    if none.any():
        centres = shapely.get_coordinates(shapely.centroid(polygons[none])) / scale
        sums[none] = np.column_stack([np.ones(len(centres)), np.floor(centres)])
    return Painted(labels, window, sums.astype(np.int64))
