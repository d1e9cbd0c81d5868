"""napari's readers: a slide as a multiscale image, cells as polygons or, where those are too many, labels and points.

Layers of one slide lie on each other: their world is µm from the slide's top-left corner. napari counts from the centre
of the first pixel, so that positions in base pixels are moved by half a pixel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import shapely

from wsipipe.errors import WsipipeError
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.slide import Slide, open_slide
from wsipipe.units import Pair
from wsipipe.view.index import CellIndex
from wsipipe.view.napari.arrays import LabelLevel, SlideLevel, Windows

MOST_POLYGONS = 50_000
"""Above this many shapes napari no longer answers; cells are labels and points then."""
COLUMNS = ("class", "probability", "area_um2", "eccentricity", "solidity")
"""Measurements that go along as features of a layer, as far as a file has them."""

GREY = (140, 140, 140)
"""Of cells without a class."""

Layer = tuple[Any, dict[str, Any], str]
Reader = Callable[[str | Sequence[str]], list[Layer]]


def slide_reader(path: str | Sequence[str]) -> Reader | None:
    """Return a reader of the slide at *path*, None when wsipipe does not open it: napari asks others then."""
    if not isinstance(path, str):
        return None
    try:
        open_slide(path).close()
    except WsipipeError:
        return None
    return lambda paths: slide_layers(_one(paths))


def cells_reader(path: str | Sequence[str]) -> Reader | None:
    """Return a reader of the cells at *path*, None when it is no file of wsipipe's."""
    if not isinstance(path, str):
        return None
    try:
        metadata(path)
    except (WsipipeError, OSError):
        return None
    return lambda paths: cell_layers(_one(paths))


def slide_layers(path: str) -> list[Layer]:
    """Return a slide as one multiscale image layer of which only what is looked at is read."""
    slide = open_slide(path)
    levels = [SlideLevel(slide, level) for level in range(len(slide.info.levels))]
    about = {"name": os.path.basename(path), "rgb": True, "multiscale": True, **_world(_mpp(slide))}
    return [([Windows(level) for level in levels], {**about, "metadata": {"wsipipe": {"slide": path}}}, "image")]


def cell_layers(path: str) -> list[Layer]:
    """Return the cells of a master file: polygons up to :data:`MOST_POLYGONS`, else labels and points."""
    about = metadata(path)
    name = os.path.basename(path).removesuffix(".parquet")
    world = _world((float(about["mpp"][0]), float(about["mpp"][1])))
    kept = {"metadata": {"wsipipe": {"cells": path, "size": about["size"], "bounds": about["bounds"]}}}
    index = CellIndex(path)
    if 0 < index.cells <= MOST_POLYGONS:
        return [_polygons(path, name, index, world | kept)]
    labels = [Windows(level) for level in LabelLevel.pyramid(path, about["size"])]
    shown = {"name": f"{name} (labels)", "multiscale": True, "opacity": 0.5}
    return [(labels, shown | world | kept, "labels"), _points(name, index, world | kept)]


def _polygons(path: str, name: str, index: CellIndex, common: dict[str, Any]) -> Layer:
    cells = read_cells(path)
    rings = [shapely.get_coordinates(polygon.exterior)[:-1, ::-1] - 0.5 for polygon in cells.geometry]
    features = {c: cells[c].to_numpy() for c in COLUMNS if c in cells}
    features["class"] = np.array([kind if isinstance(kind, str) else "" for kind in cells["class"]], object)
    colours = np.array([[*rgb, 255] for rgb in index.colours.values()] + [[*GREY, 255]]) / 255
    codes = {kind: i for i, kind in enumerate(index.colours)}
    edges = colours[[codes.get(kind, len(codes)) for kind in cells["class"]]]
    shown = {"name": name, "shape_type": "polygon", "features": features, "face_color": "transparent"}
    return rings, {**shown, "edge_color": edges, "edge_width": 1.0, **common}, "shapes"


def _points(name: str, index: CellIndex, common: dict[str, Any]) -> Layer:
    """Return centroids, in the colours of their classes."""
    width, height = index.about["size"]
    codes, xy = index.dots((0.0, 0.0, float(width), float(height)))
    colours = np.array([[*rgb, 255] for rgb in index.colours.values()] + [[*GREY, 255]]) / 255
    kinds = np.array([*index.colours, ""], object)
    at = np.minimum(codes, len(kinds) - 1)
    shown = {"name": f"{name} (centres)", "features": {"class": kinds[at]}, "face_color": colours[at]}
    size = {"size": max(4.0, index.diameter_px / 2), "border_width": 0.0}
    return np.asarray(xy, np.float32)[:, ::-1] - 0.5, shown | size | common, "points"


def _world(mpp: Pair | None) -> dict[str, Any]:
    """Return scale and place of a layer whose data count base pixels, y before x."""
    x, y = mpp or (1.0, 1.0)
    return {"scale": (y, x), "translate": (y / 2, x / 2)}


def _mpp(slide: Slide) -> Pair | None:
    return slide.info.mpp


def _one(paths: str | Sequence[str]) -> str:
    return paths if isinstance(paths, str) else paths[0]
