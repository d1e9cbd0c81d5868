"""A slide and its cells, opened to be looked at together, after a check that they belong together."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import shapely

from wsipipe.artifacts import read_json
from wsipipe.errors import SettingsError
from wsipipe.formats.parquet import MASTER, metadata
from wsipipe.quality.kept import beside
from wsipipe.settings import SHARPEST, SlideSettings, TissueSettings
from wsipipe.slide import Slide, fingerprint, open_slide
from wsipipe.store import is_store, open_store
from wsipipe.tissue import Tissue, find_tissue
from wsipipe.units import Pair

CELLS = (MASTER, ".geojson", ".geojson.gz")
"""Endings of files that hold cells."""
AREA_TOLERANCE = 1e-3
"""Tissue that is found again may differ by this share of its area from what the run recorded."""


def record_of(master: Path) -> dict[str, Any]:
    """Return the run record beside a file of cells, {} when there is none that can be read."""
    return read_json(record_beside(master))


def record_beside(cells: Path) -> Path:
    """Return where the run record of a file of cells is."""
    ending = next((end for end in CELLS if cells.name.endswith(end)), "")
    return cells.parent / f"{cells.name.removesuffix(ending)}.run.json"


def slide_of(master: Path, record: Mapping[str, Any]) -> str | None:
    """Return the slide that a run record names, as it says or beside the master file; None where it is gone."""
    named = str(record.get("slide") or "")
    if not named or "://" in named:
        return named or None
    beside = master.parent / Path(named).name
    return next((str(path) for path in (named, beside) if os.path.exists(path)), None)


def open_pair(path: str, master: Path | None, settings: SlideSettings) -> tuple[Slide, list[str]]:
    """Return the slide at *path* (or of the tile store there), and what is doubtful about it and the cells.

    Parameters
    ----------
    path : str
    master : Path, optional
        Cells that are to be shown on it.
    settings : SlideSettings

    Raises
    ------
    SettingsError
        When the cells are those of a slide of another size.
    SlideError, StoreError
    """
    if path.lower().endswith(CELLS):
        raise SettingsError(f"{path} holds cells, not a slide; give the slide that they lie on, and the cells after it")
    about = metadata(master) if master is not None else None
    location = open_store(path).raster.slide.path if is_store(path) else path
    slide = open_slide(location, _as_run(settings, about))
    try:
        warnings = [] if about is None else _doubts(slide, location, about, str(master))
        warnings += slide.info.warnings if settings.plane == SHARPEST else ()
    except BaseException:
        slide.close()
        raise
    return slide, warnings


def tissue_again(slide: Slide, path: str, master: Path, about: Mapping[str, Any]) -> Tissue | None:
    """Return the tissue that a run analysed: of its store, or found again with its settings; None where it differs.

    Parameters
    ----------
    slide : Slide
    path : str
        Of the slide, or of its store.
    master : Path
        The run's cells, beside which the quality map of the slide may be.
    about : mapping
        What they say of themselves.
    """
    asked = (about.get("settings") or {}).get("tissue") or {}
    known = {f.name for f in dataclasses.fields(TissueSettings)}
    mpp: Pair = tuple(about["mpp"])
    try:
        settings = TissueSettings(**{k: v for k, v in asked.items() if k in known})
        tissue = open_store(path).tissue if is_store(path) else find_tissue(slide, mpp, settings, kept=[beside(master)])
    except SettingsError:  # the file of polygons is gone
        return None
    if about.get("analysed"):
        inside = shapely.intersection(shapely.MultiPolygon(tissue.polygons), shapely.box(*about["analysed"]))
        tissue = Tissue.of(inside, slide.info, mpp, tissue.source)
    recorded = float(about.get("tissue_area_um2") or 0)
    return tissue if abs(_readable_um2(tissue, about) - recorded) <= AREA_TOLERANCE * max(recorded, 1) else None


def _readable_um2(tissue: Tissue, about: Mapping[str, Any]) -> float:
    """Return the area of *tissue* without what could not be read."""
    boxes = about.get("bad_boxes") or ()
    if not boxes or not tissue.polygons:
        return tissue.area_um2
    shape = shapely.MultiPolygon(tissue.polygons)
    lost = shapely.intersection(shape, shapely.union_all([shapely.box(*box) for box in boxes])).area
    return tissue.area_um2 * (1 - lost / shape.area)


def _as_run(settings: SlideSettings, about: Mapping[str, Any] | None) -> SlideSettings:
    """Return *settings* with the scene and, where it was given by hand, the resolution that the run used."""
    if about is None:
        return settings
    used = (about.get("settings") or {}).get("slide") or {}
    mpp = settings.mpp or (about["mpp"][0] if about.get("mpp_source") == "override" else None)
    scene = settings.scene or int(used.get("scene") or 0)
    return dataclasses.replace(settings, mpp=mpp, scene=scene, plane=plane_of_run(settings, about))


def plane_of_run(settings: SlideSettings, about: Mapping[str, Any]) -> str | None:
    """Return the focal plane to be read: the one asked for, else the one that a run read, as its file says."""
    return settings.plane or (str(int(about["plane"])) if about.get("plane") is not None else None)


def _doubts(slide: Slide, path: str, about: Mapping[str, Any], master: str) -> list[str]:
    """Return warnings that the cells may be of another slide."""
    if list(slide.info.size) != list(about["size"]):
        (w, h), (cw, ch) = slide.info.size, about["size"]
        raise SettingsError(
            f"{master} holds the cells of a slide of {cw} x {ch} px, but {path} has {w} x {h} px; give the slide they "
            "were found on"
        )
    if fingerprint(path) != about["fingerprint"]:
        return [f"{path} is not byte for byte the slide that {master} was made from; sizes agree, cells are shown"]
    return []
