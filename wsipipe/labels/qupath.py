"""Objects drawn or detected in QuPath, as GeoJSON beside the slide; annotated regions become images.

A region is an annotation whose class begins with "Region", or else one that holds other objects. Nuclei are the
detections and cells (of a cell its nucleus, where there is one) and the annotations inside a region. What lies outside
the region's outline is not annotated; of a slide whose objects lie in no region, the box around them is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.artifacts import from_json
from wsipipe.artifacts.plain import text_of
from wsipipe.errors import DatasetError, SlideError, in_words
from wsipipe.geometry import mended, qupath_origin
from wsipipe.labels.annotated import DEFAULT_MPP, UNKNOWN, Content, DatasetSpec
from wsipipe.labels.outlines import Outline, paint
from wsipipe.labels.pictures import IMAGE_SUFFIXES, MAX_PIXELS
from wsipipe.labels.sources import Item, files_under, picture_of
from wsipipe.raster import open_slide_raster
from wsipipe.raster.fill import fill
from wsipipe.settings import SlideSettings
from wsipipe.slide import open_slide

REGION = "region"
"""Class names that begin so (in any case) mark a region."""


@dataclass(frozen=True)
class Drawn:
    """An object of QuPath, in its pixels of the slide."""

    shape: shapely.Geometry
    kind: str
    name: str
    annotation: bool


def items(path: Path, spec: DatasetSpec, working_mpp: float | None = None) -> list[Item]:
    """Return the annotated regions of every GeoJSON file under *path*; pixels come at the set's or *working_mpp*.

    Raises
    ------
    DatasetError
    """
    root, found = (path if path.is_dir() else path.parent), []
    for file in files_under(path, ".geojson") or files_under(path, ".json"):
        slide, objects = _slide_of(file, root), read_objects(file)
        regions = _regions(objects)
        names = [r.name or (f"region{k}" if len(regions) > 1 else "") for k, r in enumerate(regions, 1)]
        for region, name in zip(regions, names):
            stem = "_".join(filter(None, (slide.stem, name.replace("/", "-"))))
            found.append(Item(stem, partial(_read, slide, region, objects, spec, working_mpp)))
    return found


def read_objects(path: Path) -> list[Drawn]:
    """Return the objects in a GeoJSON file: a FeatureCollection, a list of features, or one feature.

    Raises
    ------
    DatasetError
    """
    try:
        content = from_json(text_of(path))
        features = content.get("features", [content]) if isinstance(content, dict) else content
        return [_drawn(feature) for feature in features if feature.get("geometry")]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        raise DatasetError(f"{path}: not GeoJSON as QuPath writes it ({in_words(error)})") from error


def _drawn(feature: Mapping[str, Any]) -> Drawn:
    properties = feature.get("properties") or {}
    shape = mended(shapely.from_geojson(json.dumps(feature.get("nucleusGeometry") or feature["geometry"])))
    kind = properties.get("objectType") or properties.get("object_type") or str(feature.get("id", ""))
    told = properties.get("classification") or {}
    names = told.get("names") or [told.get("name") or ""]
    name = properties.get("name") or ""
    return Drawn(shape, ": ".join(names), str(name), "annotation" in kind.lower() or not kind.strip())


def _slide_of(file: Path, root: Path) -> Path:
    """Return the slide of a GeoJSON file: ``slide.svs.geojson`` or ``slide.geojson`` beside ``slide.svs``."""
    whole = file.with_suffix("")
    return whole if whole.is_file() else picture_of(file, root)


def _regions(objects: Sequence[Drawn]) -> list[Drawn]:
    """Return what counts as a region among *objects*; the box around all of them where nothing does."""
    drawn = [o for o in objects if o.annotation and shapely.area(o.shape) > 0]
    if marked := [o for o in drawn if o.kind.lower().startswith(REGION)]:
        return marked
    inside = [o for o in objects if not o.annotation] or drawn
    tree = shapely.STRtree(shapely.centroid(np.array([o.shape for o in inside], object)))
    holding = [o for o in drawn if _holds(o, inside, tree)]
    if holding or not inside:
        return holding
    box = shapely.box(*shapely.total_bounds(np.array([o.shape for o in inside])))
    return [Drawn(box, REGION, "", True)]


def _holds(region: Drawn, inside: Sequence[Drawn], tree: shapely.STRtree) -> bool:
    found = tree.query(region.shape, predicate="contains")
    return any(inside[i] is not region for i in found)


def _read(
    slide: Path, region: Drawn, objects: Sequence[Drawn], spec: DatasetSpec, working_mpp: float | None
) -> Content:
    try:
        image, origin, scale, mpp = _pixels(slide, region.shape, spec, working_mpp)
    except SlideError as error:
        raise DatasetError(str(error)) from error
    regions = {id(o) for o in _regions(objects)}
    near = [o for o in objects if id(o) not in regions and shapely.intersects(o.shape, region.shape)]
    outlines = [Outline([(ring / scale) - origin for ring in _rings(o.shape)], o.kind) for o in near]
    labels, kinds = paint(outlines, (image.shape[1], image.shape[0]), f"{slide}, {region.name or REGION}")
    known = np.zeros(labels.shape, np.int32)
    fill(known, [[(ring / scale) - origin for ring in _rings(region.shape)]], [1])
    return Content(image, np.where((known == 0) & (labels == 0), UNKNOWN, labels), kinds, mpp)


def _pixels(
    slide: Path, shape: shapely.Geometry, spec: DatasetSpec, working_mpp: float | None
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64], float | None]:
    """Return the pixels of the box around *shape*, their origin, base px per grid px, µm/px if known.

    The origin is that of QuPath's pixels divided by base px per grid px: QuPath counts from the scanned area.
    """
    asked = None if isinstance(spec.mpp, str) else float(spec.mpp)
    with open_slide(slide) as opened:
        plain = opened.info.mpp is None and slide.suffix.lower() in IMAGE_SUFFIXES
        corner = np.array(qupath_origin(opened.info.size, opened.info.bounds), np.float64)
    settings = SlideSettings(mpp=(asked or DEFAULT_MPP) if plain else None)
    raster = open_slide_raster(slide, settings, None if plain else asked or working_mpp)
    try:
        box = raster.grid.grid_box((shapely.bounds(shape) + np.tile(corner, 2)).tolist())
        if (box[2] - box[0]) * (box[3] - box[1]) > MAX_PIXELS:
            size = f"{box[2] - box[0]} x {box[3] - box[1]} px"
            raise DatasetError(f"{slide}: an annotated region is {size}; expected smaller regions")
        if box[2] <= box[0] or box[3] <= box[1]:
            raise DatasetError(f"{slide}: an annotated region lies outside the slide; is it of another slide?")
        mpp = None if plain and not asked else raster.grid.mpp[0]
        scale = np.array(raster.grid.scale)
        return raster.read(box), np.array(box[:2], np.float64) - corner / scale, scale, mpp
    finally:
        raster.close()


def _rings(shape: shapely.Geometry) -> list[NDArray[np.float64]]:
    """Return all rings of a polygon or of several."""
    parts = shapely.get_parts(shape)
    polygons = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return [shapely.get_coordinates(ring) for ring in shapely.get_rings(polygons)]
