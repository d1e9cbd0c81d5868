"""The quality map of a slide, kept beside its results: what one command has found out the next one reads.

``cells.quality.npz`` beside ``cells.parquet`` holds the map, and of which slide, at which resolution, by which version
it was made. Where one of these differs, or the file is damaged, the slide is looked at again.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsipipe._version import __version__
from wsipipe.artifacts import atomic_write, canonical_json, from_json
from wsipipe.errors import FAILURES, OutputError
from wsipipe.quality.map import QualityMap, quality_map
from wsipipe.runs import claimed
from wsipipe.slide import fingerprint
from wsipipe.slide.protocol import Slide, SlideInfo
from wsipipe.units import Pair

ENDING = ".quality.npz"
DAMAGED: tuple[type[Exception], ...] = (*FAILURES, zipfile.BadZipFile)


def beside(results: Path) -> Path:
    """Return where the map that goes with *results* (``cells.parquet``) is kept: ``cells.quality.npz``."""
    return results.with_name(f"{results.name.removesuffix('.parquet')}{ENDING}")


def map_of(
    slide: Slide, base_mpp: Pair, kept: Iterable[Path] = (), progress: Callable[[float], None] = lambda share: None
) -> QualityMap:
    """Return the quality map of *slide*: the first of the files *kept* that holds it, else it is made now.

    Parameters
    ----------
    slide : Slide
    base_mpp : (float, float)
    kept : iterable of Path
        Where it may be; see :func:`keep`. Files of other slides, resolutions or versions are passed over.
    progress : callable, optional
        Told the share that is done.
    """
    about = _about(slide.info, base_mpp)
    for path in kept:
        if (found := _read(path, about)) is not None:
            progress(1.0)
            return found
    return replace(quality_map(slide, base_mpp, progress), about=about)


def write(path: Path, found: QualityMap) -> None:
    """Write a map to the file *path*; nothing where nobody knows which slide it is of.

    Raises
    ------
    OutputError
    """
    if found.about:
        told = {"about": found.about, "scale": found.scale, "mpp": found.mpp, "warnings": found.warnings}
        with atomic_write(path) as file:
            np.savez_compressed(file, classes=found.classes, blur=found.blur, told=canonical_json(told).decode())


def keep(path: Path, found: QualityMap) -> None:
    """Write a map to *path* unless it is there; where that cannot be, the next command only takes longer."""
    if _read(path, found.about) is None:
        with contextlib.suppress(OutputError), claimed(path):
            write(path, found)


def _about(info: SlideInfo, base_mpp: Pair) -> dict[str, Any]:
    """Return what determines the map of a slide; {} of one that is no file, which nobody would know again."""
    if "://" not in info.path and not os.path.exists(info.path):
        return {}
    return {
        "slide": fingerprint(info.path),
        "scene": info.scene,
        "size": list(info.size),
        "mpp": list(base_mpp),
        "version": __version__,
    }


def _read(path: Path, about: Mapping[str, Any]) -> QualityMap | None:
    """Return the map that *path* holds, if it is the one of *about*."""
    if not about:
        return None
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            told = from_json(str(file["told"]))
            if told["about"] != about:
                return None
            (x, y), mpp, warnings = told["scale"], float(told["mpp"]), tuple(map(str, told["warnings"]))
            classes, blur = file["classes"], file["blur"]
    except DAMAGED:
        return None
    if classes.dtype != np.uint8 or blur.dtype != np.float32 or classes.ndim != 2 or classes.shape != blur.shape:
        return None
    return QualityMap(classes, blur, (float(x), float(y)), mpp, warnings, about)
