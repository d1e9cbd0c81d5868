"""Master files for tests: square cells where they are wanted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from tests.conftest import Phantom
from wsipipe.cells.measure import MEASURES
from wsipipe.formats import parquet
from wsipipe.settings import TissueSettings
from wsipipe.slide import fingerprint, open_slide
from wsipipe.tissue import find_tissue

CLASSES = {"Dead": (250, 0, 0), "Epithelial": (255, 140, 0)}
ABOUT: dict[str, Any] = {
    "fingerprint": "f" * 64,
    "run_fingerprint": "r" * 64,
    "size": [1200, 800],
    "bounds": None,
    "mpp": [0.5, 0.5],
    "mpp_source": "vendor property",
    "working_mpp": [0.5, 0.5],
    "model": {"name": "tiny", "sha256": "0" * 64, "licence": "CC0-1.0"},
    "recipe": {"device": "cpu", "dtype": "float32", "engine": "eager", "version": "2", "batch": 4},
    "settings": {"tissue": {"tissue": "/home/someone/drawn.geojson"}, "cells": {"threshold": None}},
    "classes": CLASSES,
    "tissue_area_um2": 200_000.0,
    "bad_boxes": [],
    "analysed": None,
    "version": "0.1.0",
}
"""Metadata of a slide of 1200 × 800 px at 0.5 µm/px."""


def write_master(
    path: Path,
    xy: NDArray[Any],
    kinds: NDArray[Any] | int = -1,
    half: float = 10.0,
    measures: dict[str, NDArray[Any]] | None = None,
    bin_px: int = 512,
    **more: Any,
) -> Path:
    """Write square cells about *xy* (n, 2) of classes *kinds*, and return *path*."""
    n, (x, y) = len(xy), np.asarray(xy, float).reshape(-1, 2).T
    cells = SimpleNamespace(
        sums=np.column_stack([np.ones(n), x, y]).astype(np.int64),
        probability=np.linspace(0.5, 1, n, dtype=np.float32),
        type=np.broadcast_to(np.asarray(kinds, np.int16), n),
        type_probability=np.ones(n, np.float32),
        type_means=np.zeros((n, 0), np.float32),
        oversize=np.zeros(n, bool),
    )
    polygons = shapely.box(x - half, y - half, x + half, y + half)
    values = {name: np.full(n, 100.0) for name in MEASURES} | {"x": x, "y": y} | (measures or {})
    table = parquet.cells_table(cells, polygons, values, fingerprint="f", classes=list(CLASSES))
    part = path.with_suffix(".part")
    parquet.write_part(table, part, bin_px)
    parquet.merge_parts([part], path, ABOUT | more, bin_px)
    part.unlink()
    return path


def truth_master(path: Path, phantom: Phantom, **more: Any) -> Path:
    """Write the true nuclei of the phantom as a master file, with the slide's own fingerprint and tissue."""
    with open_slide(phantom.path) as slide:
        info = slide.info
        assert info.mpp is not None
        tissue = find_tissue(slide, info.mpp, TissueSettings())
    xy = phantom.truth.centroids((0, 0, *info.size))
    kinds = np.arange(len(xy)) % 3 - 1
    about = {
        "fingerprint": fingerprint(phantom.path),
        "size": list(info.size),
        "mpp": list(info.mpp),
        "settings": {"tissue": {"tissue": "auto"}, "slide": {"mpp": None, "scene": 0}},
        "tissue_area_um2": round(tissue.area_um2, 3),
    }
    return write_master(path, xy, kinds, 6.0, **about | more)
