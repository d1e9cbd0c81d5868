"""The tissue of a slide as polygons in base pixels: searched for, everything, or drawn by hand."""

from __future__ import annotations

import dataclasses
import json
import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numba import njit
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsipipe.artifacts import atomic_write, from_json
from wsipipe.artifacts.plain import text_of
from wsipipe.errors import SettingsError, in_words
from wsipipe.geometry import mended
from wsipipe.quality.fields import quality_warnings
from wsipipe.quality.kept import map_of
from wsipipe.quality.map import QualityMap, faults_named
from wsipipe.quality.shapes import outline
from wsipipe.settings import TissueSettings
from wsipipe.slide.overview import overview
from wsipipe.slide.protocol import Slide, SlideInfo
from wsipipe.tissue.search import tissue_mask
from wsipipe.units import Box, Pair

Mask = NDArray[np.bool_]

TISSUE_COLOUR = [180, 60, 120]


@dataclass(frozen=True)
class Tissue:
    """The analysed part of a slide.

    Attributes
    ----------
    polygons : tuple of shapely.Polygon
        Disjoint, valid, in base pixels, inside the slide; with holes.
    area_um2 : float
    source : {"auto", "none", "file"}
        How they were found; ``none``: no search, the whole slide.
    warnings : tuple of str
        Reasons to doubt the result: another stain, out of focus, parts that cannot be read.
    unread_um2 : float
        Area of it that no level of the slide can show: taken for tissue, so that it counts as unreadable.
    quality : QualityMap, optional
        Of the slide, where faults were left out.
    """

    polygons: tuple[shapely.Polygon, ...]
    area_um2: float
    source: str
    warnings: tuple[str, ...] = field(default=())
    unread_um2: float = 0.0
    quality: QualityMap | None = field(default=None, compare=False, repr=False)

    @cached_property
    def shape(self) -> BaseGeometry:
        """All polygons as one shape."""
        return shapely.MultiPolygon(self.polygons)

    @property
    def _shape(self) -> BaseGeometry:
        """All polygons as one shape, prepared for many questions (a copy from another process is not)."""
        shapely.prepare(self.shape)
        return self.shape

    @property
    def is_empty(self) -> bool:
        """Whether there is no tissue at all."""
        return not self.polygons

    def clipped(self, box: Box) -> tuple[shapely.Polygon, ...]:
        """Return the parts of the polygons inside *box* (base pixels)."""
        return tuple(_polygons_in(shapely.intersection(self._shape, shapely.box(*box))))

    def contains(self, x_base: NDArray[np.float64], y_base: NDArray[np.float64]) -> Mask:
        """Return which points (base pixels) lie in tissue."""
        return np.asarray(shapely.contains_xy(self._shape, x_base, y_base), dtype=bool)

    def overlaps(self, boxes: NDArray[Any], scale: Pair = (1.0, 1.0)) -> Mask:
        """Return which *boxes* (n, 4), in pixels of *scale* base pixels each, touch tissue: bool (n,)."""
        in_base = np.asarray(boxes, dtype=np.float64) * np.array([*scale, *scale])
        return np.asarray(shapely.intersects(self._shape, shapely.box(*in_base.T)), dtype=bool)

    def share(self, boxes: NDArray[Any], scale: Pair = (1.0, 1.0)) -> NDArray[np.float64]:
        """Return how much of each of *boxes* (n, 4), in pixels of *scale* base pixels each, is tissue: float (n,)."""
        shapely.prepare(self._shape)
        squares: Any = shapely.box(*(np.asarray(boxes, np.float64) * np.array([*scale, *scale])).T)
        return np.asarray(shapely.area(shapely.intersection(self._shape, squares)) / shapely.area(squares))

    def chosen(self, boxes: NDArray[Any], scale: Pair, least: float) -> NDArray[np.int64]:
        """Return those of *boxes* of which at least the share *least* is tissue; all, where none was searched for."""
        if self.source == "none":
            return np.asarray(boxes, np.int64)
        boxes = boxes[self.overlaps(boxes, scale)]
        return np.asarray(boxes[self.share(boxes, scale) >= least], np.int64)

    def mask(self, scale: Pair, box: Box) -> Mask:
        """Return which pixels of *box* have their centre in tissue: bool (h, w); a pixel is *scale* base pixels."""
        x0, y0, x1, y1 = box
        flips = np.zeros((y1 - y0, x1 - x0 + 1), np.uint8)
        for polygon in self.polygons:
            for ring in (polygon.exterior, *polygon.interiors):
                _cross(shapely.get_coordinates(ring) / np.array(scale) - (x0, y0), flips)
        return np.bitwise_xor.accumulate(flips, axis=1)[:, :-1].astype(bool)

    def to_geojson(self, path: str | Path, origin: Pair = (0.0, 0.0)) -> None:
        """Write the polygons as annotations that QuPath edits and :meth:`from_geojson` reads back.

        *origin* (base pixels) is where the viewer's own coordinates begin: see :func:`viewer_origin`.
        """
        shifted = [shapely.transform(p, lambda xy: xy - np.array(origin)) for p in self.polygons]
        features = [_annotation(index, polygon) for index, polygon in enumerate(shifted)]
        with atomic_write(path, "w") as file:
            json.dump({"type": "FeatureCollection", "features": features}, file)

    @classmethod
    def from_geojson(cls, path: str | Path, info: SlideInfo, base_mpp: Pair, origin: Pair = (0.0, 0.0)) -> Tissue:
        """Return the tissue that a GeoJSON file draws, merged and clipped to the slide.

        Points and lines in the file are left out; a file without any feature means no tissue.

        Raises
        ------
        SettingsError
            When the file is missing, is not GeoJSON, has no polygon among its features, or none on the slide.
        """
        shapes = [shapely.transform(shape, lambda xy: xy + np.array(origin)) for shape in _read_shapes(Path(path))]
        tissue = cls.of(shapely.union_all(shapes), info, base_mpp, "file")
        if shapes and tissue.is_empty:
            width, height = info.size
            raise SettingsError(
                f"{path}: none of its {len(shapes)} polygons lies on the slide ({width} x {height} px); "
                "expected coordinates in level-0 pixels"
            )
        return tissue

    @classmethod
    def of(cls, shape: BaseGeometry, info: SlideInfo, base_mpp: Pair, source: str) -> Tissue:
        """Return the tissue made of the polygons of *shape* (base pixels), clipped to the slide."""
        clipped = shapely.intersection(shapely.make_valid(shape), shapely.box(0, 0, *info.size))
        clipped = shapely.set_precision(clipped, 0.01)
        polygons = _polygons_in(clipped.normalize())
        polygons.sort(key=lambda p: (p.bounds[1], p.bounds[0], p.area))
        area = sum(p.area for p in polygons) * base_mpp[0] * base_mpp[1]
        return cls(tuple(polygons), float(area), source)


def find_tissue(
    slide: Slide, base_mpp: Pair, settings: TissueSettings, bounds: Box | None = None, kept: Iterable[Path] = ()
) -> Tissue:
    """Return the tissue of *slide* as *settings* ask: searched for, everything, or read from a file.

    An empty slide gives a :class:`Tissue` without polygons. Doubts about stain and focus are among its warnings: of the
    tissue inside *bounds* (base pixels) where these are given. Faults to leave out are looked up in the files *kept*:
    see :func:`wsipipe.quality.kept.map_of`.

    Raises
    ------
    SettingsError
        When the file of polygons is not usable.
    """
    if settings.tissue == "none":
        tissue = Tissue.of(shapely.box(0, 0, *slide.info.size), slide.info, base_mpp, "none")
    elif settings.tissue == "auto":
        tissue = search_tissue(slide, base_mpp, settings)
    else:
        tissue = Tissue.from_geojson(settings.tissue, slide.info, base_mpp, viewer_origin(slide.info))
    if settings.exclude_quality:
        tissue = without_faults(tissue, slide, base_mpp, settings.exclude_quality, kept)
    looked_at = tissue.polygons if bounds is None else tissue.clipped(bounds)
    return dataclasses.replace(tissue, warnings=(*tissue.warnings, *quality_warnings(slide, base_mpp, looked_at)))


def without_faults(tissue: Tissue, slide: Slide, base_mpp: Pair, names: str, kept: Iterable[Path] = ()) -> Tissue:
    """Return *tissue* without the areas that the quality map calls by one of *names*; a warning says how much went.

    Raises
    ------
    SettingsError
        When a name is none of a fault.
    """
    kinds = faults_named(names, "--exclude-quality")
    found = map_of(slide, base_mpp, kept)
    faults = shapely.union_all([polygon for kind in kinds for polygon in found.areas(kind)])
    left = Tissue.of(
        shapely.difference(shapely.MultiPolygon(tissue.polygons), faults), slide.info, base_mpp, tissue.source
    )
    lost = (tissue.area_um2 - left.area_um2) * 1e-6
    what = ", ".join(kind.label for kind in kinds)
    line = f"{lost:.3g} mm² of tissue left out by --exclude-quality ({what})"
    warnings = (*tissue.warnings, line, *found.warnings)
    return dataclasses.replace(left, warnings=warnings, unread_um2=tissue.unread_um2, quality=found)


def search_tissue(slide: Slide, base_mpp: Pair, settings: TissueSettings) -> Tissue:
    """Return the tissue found on a small picture of *slide*; what no level of it can show is taken for tissue."""
    side_um = min(n * mpp for n, mpp in zip(slide.info.size, base_mpp, strict=True))
    search_mpp = max(*base_mpp, min(settings.tissue_mpp, side_um / 256))
    picture, scale, gaps = overview(slide, search_mpp)
    um_per_px = math.sqrt(scale[0] * base_mpp[0] * scale[1] * base_mpp[1])
    found = tissue_mask(picture, um_per_px, settings, slide.info.background)
    shape = outline(found, (settings.margin_um / um_per_px))
    shape = shapely.transform(shape, lambda xy: xy * np.array(scale))
    lost = shapely.union_all([shapely.box(*box) for box in gaps.lost])
    tissue = Tissue.of(shapely.union(shape, lost) if gaps.lost else shape, slide.info, base_mpp, "auto")
    unread_um2 = float(lost.area) * base_mpp[0] * base_mpp[1]
    mended = "the overview is damaged: tissue was looked for in other pyramid levels; copy the slide again"
    warnings = ((mended,) if gaps.mended else ()) + gaps.told(base_mpp, "tissue, and counted as unreadable")
    return dataclasses.replace(tissue, warnings=warnings, unread_um2=unread_um2)


def viewer_origin(info: SlideInfo) -> Pair:
    """Return where QuPath's coordinates begin, in base pixels: the bounds' corner when it crops the slide to them."""
    if info.bounds is None:
        return 0.0, 0.0
    x0, y0, x1, y1 = info.bounds
    cropped = x1 - x0 != info.size[0] and y1 - y0 != info.size[1]
    return (float(x0), float(y0)) if cropped else (0.0, 0.0)


def _annotation(index: int, polygon: shapely.Polygon) -> dict[str, Any]:
    geometry = from_json(shapely.to_geojson(polygon))
    classification = {"name": "Tissue", "color": TISSUE_COLOUR}
    properties = {"objectType": "annotation", "name": f"Tissue {index + 1}", "classification": classification}
    identity = str(uuid.uuid5(uuid.NAMESPACE_OID, polygon.wkb_hex))
    return {"type": "Feature", "id": identity, "geometry": geometry, "properties": properties}


def _read_shapes(path: Path) -> list[shapely.Polygon]:
    """Return the polygons of a GeoJSON file, each made valid."""
    try:
        content = from_json(text_of(path, "utf-8-sig"))
    except OSError as error:
        why = error.strerror
        raise SettingsError(f"--tissue {path}: cannot be read ({why}); expected auto, none or a file") from error
    except ValueError as error:
        raise SettingsError(f"--tissue {path}: not a GeoJSON file ({in_words(error)})") from error
    features = content.get("features", [content]) if isinstance(content, dict) else content
    try:
        shapes = [shapely.from_geojson(json.dumps(f.get("geometry", f))) for f in features]
        polygons = [p for shape in shapes if shape is not None for p in _polygons_in(mended(shape))]
    except (AttributeError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
        raise SettingsError(f"--tissue {path}: not a GeoJSON file of features ({in_words(error)})") from error
    if features and not polygons:
        raise SettingsError(f"--tissue {path}: no polygon among its {len(features)} features; expected tissue outlines")
    return polygons


def _polygons_in(shape: shapely.Geometry) -> list[shapely.Polygon]:
    parts = shapely.get_parts(shapely.get_parts(shape))
    return [part for part in parts if isinstance(part, shapely.Polygon) and part.area > 0]


@njit(cache=True, nogil=True)
def _cross(ring: NDArray[np.float64], flips: NDArray[np.uint8]) -> None:
    """Flip *flips* (h, w + 1), per row, at the first pixel centre right of each edge of *ring* that crosses the row."""
    height, width = flips.shape[0], flips.shape[1] - 1
    for i in range(ring.shape[0] - 1):
        (xa, ya), (xb, yb) = (ring[i, 0], ring[i, 1]), (ring[i + 1, 0], ring[i + 1, 1])
        first = max(0, math.ceil(min(ya, yb) - 0.5))
        last = min(height, math.ceil(max(ya, yb) - 0.5))
        for row in range(first, last):
            x = xa + (row + 0.5 - ya) / (yb - ya) * (xb - xa)
            flips[row, min(max(0, math.ceil(x - 0.5)), width)] ^= 1
