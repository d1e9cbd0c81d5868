"""Regions of a slide: annotations as QuPath draws them, kept apart, with their names and classes.

Regions are a :class:`geopandas.GeoDataFrame` with the columns :data:`COLUMNS`, one row each. Their geometry is in base
pixels (level 0), without CRS; a region may have holes and parts, and may lie inside another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from wsipipe.errors import SettingsError
from wsipipe.formats.imported import Drawn, read_drawn
from wsipipe.geometry import qupath_origin

if TYPE_CHECKING:
    import geopandas

COLUMNS = ("name", "classification", "kind", "parent", "id", "colour", "geometry")
"""Of a region: its name, unlike any other's; its class ("" for none); one of :data:`KINDS`; the name of the smallest
region that holds it ("" for none); QuPath's identity ("" for none); the colour (r, g, b) of its class,
or None; its shape."""
KINDS = ANNOTATION, CORE, HOT_SPOT, TISSUE = "annotation", "core", "hot spot", "tissue"
"""What a region is: drawn, a core of a tissue microarray, a field of many cells, all of the analysed tissue."""
WHOLE = "Tissue"
"""Name of the region that is all of the analysed tissue."""
ROLES = {"annotation": ANNOTATION, "tma_core": CORE}
"""QuPath's types of objects that are regions."""


def regions_frame(rows: Sequence[Mapping[str, Any]]) -> geopandas.GeoDataFrame:
    """Return regions from one mapping each; what a row does not say is "" (``kind``: an annotation)."""
    import geopandas

    default: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"kind": ANNOTATION, "colour": None}
    full = [default | dict(row) for row in rows]
    columns = {name: [row[name] for row in full] for name in COLUMNS if name != "geometry"}
    shapes = np.array([row["geometry"] or None for row in full], object)
    return geopandas.GeoDataFrame(columns, geometry=shapes, columns=list(COLUMNS))


def read_regions(path: Path, about: Mapping[str, Any], tell: Callable[[str], None]) -> geopandas.GeoDataFrame:
    """Return the regions in a GeoJSON file that QuPath exported, in the order of the file.

    Annotations and TMA cores count; detections, points and lines are left out. Outlines that cross themselves are
    mended, names made unlike each other, and what sticks out of the slide cut off; *tell* is told each time.

    Parameters
    ----------
    path : path
    about : mapping
        What the master file of the cells says of the slide: ``size`` and ``bounds``.
    tell : callable

    Raises
    ------
    StoreError
        When *path* is not GeoJSON.
    SettingsError
        When it holds no region, or one that lies outside the slide.
    """
    drawn = [d for d in read_drawn(path, qupath_origin(about["size"], about["bounds"])) if d.role in ROLES]
    drawn = [d for d in drawn if shapely.area(d.shape) > 0]
    if not drawn:
        raise SettingsError(f"--regions {path}: no annotation with an area in it; export annotations from QuPath")
    names = _names(drawn)
    renamed = [f"{new!r}" for d, new in zip(drawn, names) if d.name and new != d.name]
    crossed = [f"{name!r}" for d, name in zip(drawn, names) if d.crossed]
    if renamed:
        tell(f"warning: {path}: regions with the same name as another are called {_listed(renamed)}")
    if crossed:
        tell(f"warning: {path}: outlines that crossed themselves were mended: {_listed(crossed)}")
    shapes = _on_slide(path, drawn, names, about["size"], tell)
    rows = [
        {
            "name": name,
            "classification": d.kind,
            "kind": ROLES[d.role],
            "id": d.id,
            "colour": d.colour,
            "geometry": shape,
        }
        for d, name, shape in zip(drawn, names, shapes)
    ]
    return with_parents(regions_frame(rows))


def with_parents(regions: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Return *regions* with the name of the smallest region that holds each as its ``parent``."""
    shapes, names = regions.geometry.to_numpy(), regions["name"].tolist()
    areas = shapely.area(shapes)
    inner, outer = shapely.STRtree(shapes).query(shapes, predicate="covered_by")
    parents = [""] * len(shapes)
    for i in range(len(shapes)):
        holding = [j for j in outer[inner == i].tolist() if areas[j] > areas[i]]
        if holding:
            parents[i] = names[min(holding, key=lambda j: (areas[j], j))]
    return regions.assign(parent=parents)


def _names(drawn: Sequence[Drawn]) -> list[str]:
    """Return a name for each region: its own, its class, or "Annotation"; with a number where that is not the first."""
    plain = [d.name.strip() or d.kind or "Annotation" for d in drawn]
    taken, count, names = set(plain) | {WHOLE}, Counter[str](), list[str]()
    for name in plain:
        count[name] += 1
        new = name if count[name] == 1 and name != WHOLE else f"{name} {max(2, count[name])}"
        while new != name and new in taken:
            count[name] += 1
            new = f"{name} {count[name]}"
        taken.add(new)
        names.append(new)
    return names


def _on_slide(
    path: Path, drawn: Sequence[Drawn], names: Sequence[str], size: Sequence[int], tell: Callable[[str], None]
) -> Sequence[shapely.Geometry]:
    """Return the polygons of each region, without what sticks out of the slide."""
    slide = shapely.box(0, 0, size[0], size[1])
    shapes = [_polygons(shapely.normalize(shapely.intersection(_polygons(d.shape), slide))) for d in drawn]
    outside = [f"{name!r}" for name, shape in zip(names, shapes) if shapely.area(shape) == 0]
    if outside:
        raise SettingsError(
            f"--regions {path}: {_listed(outside)} outside the slide ({size[0]} x {size[1]} px); expected level-0 "
            "pixels of the slide that the cells were found on: are they of another slide?"
        )
    cut = [f"{n!r}" for n, d, s in zip(names, drawn, shapes) if shapely.area(s) < shapely.area(d.shape) * (1 - 1e-9)]
    if cut:
        tell(f"warning: {path}: what sticks out of the slide is cut off {_listed(cut)}")
    return shapes


def _polygons(shape: shapely.Geometry) -> shapely.Geometry:
    """Return the polygons of *shape*, one or several, without points and lines."""
    parts = shapely.get_parts(shapely.get_parts(shape))
    polygons = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons.tolist())


def _listed(words: Sequence[str]) -> str:
    """Return up to three *words*, and how many more there are."""
    more = f" and {len(words) - 3:,} more" if len(words) > 3 else ""
    return ", ".join(words[:3]) + more
