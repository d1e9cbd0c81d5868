"""Outlines drawn in Aperio ImageScope: the XML files of MoNuSeg and MoNuSAC.

``Annotations/Annotation/Regions/Region/Vertices/Vertex`` with X and Y in pixels of the picture; the type of cell is the
annotation's ``Name``, or the name of its first attribute (MoNuSAC). Regions with ``NegativeROA="1"`` are holes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.errors import DatasetError, in_words
from wsipipe.labels.annotated import Content
from wsipipe.labels.outlines import Outline, paint
from wsipipe.labels.pictures import read_picture
from wsipipe.labels.sources import Item, files_under, picture_of, unique
from wsipipe.raster.fill import area


def items(path: Path) -> list[Item]:
    """Return an image for every ImageScope file under *path*."""
    root = path if path.is_dir() else path.parent
    return unique([Item(label.stem, partial(_read, label, root)) for label in files_under(path, ".xml")], path)


def _read(label: Path, root: Path) -> Content:
    tree = _parse(label)
    image, mpp = read_picture(picture_of(label, root))
    outlines = [outline for annotation in tree.iter("Annotation") for outline in _outlines(annotation, label)]
    labels, kinds = paint(outlines, (image.shape[1], image.shape[0]), str(label))
    return Content(image, labels, kinds, mpp or _stated(tree))


def _parse(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DatasetError(f"{path}: not a readable XML file ({in_words(error)})") from error
    if root.tag != "Annotations":
        raise DatasetError(f"{path}: its root is <{root.tag}>; expected <Annotations> of Aperio ImageScope")
    return root


def _stated(root: ElementTree.Element) -> float | None:
    try:
        mpp = float(root.get("MicronsPerPixel", ""))
    except ValueError:
        return None
    return mpp if 0.05 <= mpp <= 5 else None


def _kind(annotation: ElementTree.Element) -> str:
    attribute = annotation.find("./Attributes/Attribute")
    named = attribute.get("Name", "") if attribute is not None else ""
    return annotation.get("Name") or ("" if named == "Description" else named)


def _outlines(annotation: ElementTree.Element, path: Path) -> Iterator[Outline]:
    """Yield the outlines of one annotation; holes join the smallest outline around them."""
    kind, regions = _kind(annotation), list(annotation.iter("Region"))
    solid = [[_ring(r, path)] for r in regions if r.get("NegativeROA", "0") != "1"]
    for hole in (_ring(r, path) for r in regions if r.get("NegativeROA", "0") == "1"):
        around = [rings for rings in solid if len(hole) and _holds(rings[0], hole[0])]
        if around:
            min(around, key=area).append(hole)
    yield from (Outline(rings, kind) for rings in solid)


def _holds(ring: NDArray[np.float64], point: NDArray[np.float64]) -> bool:
    return len(ring) > 2 and bool(shapely.contains_xy(shapely.Polygon(ring), *point))


def _ring(region: ElementTree.Element, path: Path) -> NDArray[np.float64]:
    try:
        points = [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]
    except (KeyError, ValueError) as error:
        where = f"{path}: region {region.get('Id', '?')}"
        raise DatasetError(f"{where} has a vertex without X and Y numbers ({in_words(error)})") from error
    return np.array(points, np.float64).reshape(-1, 2)
