"""Focal planes of TIFF files: OME-TIFF and ImageJ stacks, and NDPI, whose pages tell their height in a tag."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from xml.etree import ElementTree

from tifffile import TiffFile, TiffPage, TiffPageSeries

from wsipipe.slide.planes import names_of

NDPI_LENS, NDPI_HEIGHT = 65421, 65424
"""Tags of Hamamatsu: magnification (negative for macro image and map), and height above the middle plane in nm."""
UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "nm": 1e-3}


def planes_of(tiff: TiffFile, index: int) -> tuple[str, ...]:
    """Return the names of the focal planes of series *index*; none when it is no stack."""
    if tiff.is_ndpi:
        return names_of(sorted(_ndpi_pages(tiff)))
    series = tiff.series[index]
    count = dict(zip(series.axes, series.shape, strict=True)).get("Z", 1)
    return names_of(_ome_heights(tiff, index, count))


def take_plane(tiff: TiffFile, index: int, plane: int) -> None:
    """Put one focal plane in the place of series *index*, with its pyramid; what is no stack stays.

    Raises
    ------
    ValueError
        When the file lacks the plane, or does not keep it in a page of its own.
    """
    series = tiff.series[index]
    if tiff.is_ndpi:
        if len(by_height := _ndpi_pages(tiff)) > 1:
            tiff.series[index] = _pyramid([[page] for page in by_height[sorted(by_height)[plane]]], series)
    elif series.axes.startswith("Z") and series.shape[0] > 1:
        tiff.series[index] = _pyramid([_page(level, plane) for level in series.levels], series)


def _page(level: TiffPageSeries, plane: int) -> list[Any]:
    """Return the page that holds a plane of a level."""
    page = level.pages[plane] if len(level.pages) == level.shape[0] else None
    if page is None:
        raise ValueError(f"focal plane {plane} has no page of its own in the file")
    return [page.aspage()]


def _pyramid(levels: list[list[Any]], like: TiffPageSeries) -> TiffPageSeries:
    """Return a series of *levels*, finest first, each a list of its one page."""
    made = [TiffPageSeries(pages, parent=like.parent, name=like.name, kind=like.kind) for pages in levels]
    made[0].levels = made
    return made[0]


def _ndpi_pages(tiff: TiffFile) -> dict[float, list[TiffPage]]:
    """Return the pages of the slide by their height in µm, finest first; macro image and map are none."""
    found: dict[float, list[TiffPage]] = defaultdict(list)
    for page in tiff.pages:
        if isinstance(page, TiffPage) and (page.tags.valueof(NDPI_LENS) or 0) > 0:
            found[float(page.tags.valueof(NDPI_HEIGHT) or 0) / 1000].append(page)
    for pages in found.values():
        pages.sort(key=lambda page: -page.imagewidth)
    return found


def _ome_heights(tiff: TiffFile, index: int, count: int) -> list[float | None]:
    """Return the heights of *count* planes in µm by the distance that OME-XML states, None where it states none."""
    try:
        root = ElementTree.fromstring(tiff.ome_metadata or "<none/>")
    except ElementTree.ParseError:
        return [None] * count
    pixels = root.findall(".//{*}Image/{*}Pixels")
    attributes = pixels[index].attrib if index < len(pixels) else {}
    unit = UM.get(attributes.get("PhysicalSizeZUnit", "\u00b5m"))
    try:
        step = float(attributes["PhysicalSizeZ"])
    except (KeyError, ValueError):
        return [None] * count
    return [None if unit is None else n * step * unit for n in range(count)]
