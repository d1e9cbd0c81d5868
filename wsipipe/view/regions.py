"""Regions that are drawn in the viewer: kept as annotations of QuPath beside the cells, and summed up.

``cells.regions.geojson`` of ``cells.parquet`` is what ``--regions`` of ``wsipipe summarise``, ``report`` and ``score``
takes. Its member ``wsipipe`` says that the viewer wrote it, and of which slide it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsipipe.analysis.counted import CountedCells
from wsipipe.analysis.regions import regions_frame
from wsipipe.analysis.summary import summarise
from wsipipe.artifacts.plain import from_json, text_of
from wsipipe.errors import SettingsError, StoreError, in_words
from wsipipe.formats.annotations import Annotation, feature_of, in_qupath, write_features
from wsipipe.formats.colours import NO_CLASS, class_colours
from wsipipe.formats.imported import MALFORMED, drawn_of
from wsipipe.geometry import qupath_origin
from wsipipe.settings import SummariseSettings
from wsipipe.view.changing import ChangingIndex
from wsipipe.view.sent import rings_of

ENDING = ".regions.geojson"


@dataclass(frozen=True, eq=False)
class Region:
    """A region: its name, its class ("" for none), and its shape in base pixels."""

    id: str
    name: str
    kind: str
    shape: shapely.Geometry


def path_beside(master: str | os.PathLike[str]) -> Path:
    """Return where the regions that are drawn over the cells of a master file are kept."""
    path = Path(master)
    return path.with_name(path.name.removesuffix(".parquet") + ENDING)


def read_drawn_regions(path: Path, about: Mapping[str, Any]) -> dict[str, Region]:
    """Return the regions in a file that the viewer wrote, by identity.

    Raises
    ------
    StoreError
        When it is damaged.
    SettingsError
        When another program wrote it, or it is of another slide.
    """
    try:
        content = from_json(text_of(path))
        of = content.get("wsipipe")
        origin = qupath_origin(about["size"], about["bounds"])
        drawn = [drawn_of(feature, origin) for feature in content["features"]]
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MALFORMED as error:
        raise StoreError(f"{path}: no regions as the viewer writes them ({in_words(error)})") from error
    if not isinstance(of, dict) or of.get("fingerprint") != about["fingerprint"]:
        raise SettingsError(
            f"{path} is not of the viewer, or of another slide; it stays as it is: show it with --areas, or move it "
            "away to draw regions"
        )
    return {d.id: Region(d.id, d.name, d.kind, d.shape) for d in drawn}


def write_drawn_regions(path: Path, regions: Mapping[str, Region], about: Mapping[str, Any]) -> None:
    """Write regions as annotations of QuPath, atomically; without any the file goes.

    Raises
    ------
    OutputError
    """
    if not regions:
        path.unlink(missing_ok=True)
        return
    colours = region_colours(regions)
    features = [
        feature_of(Annotation(r.name, r.kind, colours.get(r.kind, (0, 0, 0)), in_qupath(r.shape, about)), r.id)
        for r in regions.values()
    ]
    write_features(path, features, {"fingerprint": about["fingerprint"]})


def told(regions: Mapping[str, Region], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a page shows of *regions*: names, classes, colours, areas and outlines."""
    colours, (x, y) = region_colours(regions), map(float, about["mpp"])
    return [
        {"id": region.id, "name": region.name, "kind": region.kind, "colour": colours.get(region.kind, NO_CLASS)}
        | {"rings": rings_of(region.shape), "mm2": float(shapely.area(region.shape)) * x * y * 1e-6}
        for region in regions.values()
    ]


def region_colours(regions: Mapping[str, Region]) -> dict[str, tuple[int, int, int]]:
    """Return the colour of each class of *regions*."""
    return class_colours(list(dict.fromkeys(r.kind for r in regions.values() if r.kind)))


def summary(index: ChangingIndex, region: Region) -> dict[str, Any]:
    """Return the numbers of a region as `wsipipe summarise` tells them, of the cells as they are shown.

    Distances between cells are left out: they depend on all cells of the slide.
    """
    (xy, codes), names = index.inside(region.shape), index.kinds()
    kinds = tuple(filter(None, names))
    order = np.array([kinds.index(name) if name else len(kinds) for name in names], np.int64)
    mpp = float(index.about["mpp"][0]), float(index.about["mpp"][1])
    cells = CountedCells(xy, order[codes], kinds, {}, mpp)
    frame = regions_frame([{"name": region.name, "classification": region.kind, "geometry": region.shape}])
    row = summarise(cells, frame, SummariseSettings())[0]
    return {key: value for key, value in row.items() if "nearest_um" not in key and "_to_" not in key}
