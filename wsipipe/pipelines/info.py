"""The story of `wsipipe info`: what a slide file says of itself, as one report."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wsipipe.settings import SlideSettings
from wsipipe.slide import Level, SlideInfo, fingerprint, is_plausible, open_slide
from wsipipe.units import Box, Pair, Size


@dataclass(frozen=True)
class SlideReport:
    """A :class:`~wsipipe.slide.SlideInfo` with what follows from it. Label and macro images are not looked at."""

    path: str
    backend: str
    vendor: str | None
    file_bytes: int | None
    size: Size
    size_mm: Pair | None
    levels: tuple[Level, ...]
    mpp: Pair | None
    mpp_source: str | None
    mpp_plausible: bool | None
    objective: float | None
    bounds: Box | None
    background: tuple[int, int, int]
    scenes: tuple[str, ...]
    scene: int
    planes: tuple[str, ...]
    plane: int
    fingerprint: str
    warnings: tuple[str, ...]


def describe(path: str | os.PathLike[str], settings: SlideSettings | None = None) -> SlideReport:
    """Return what a slide says of itself. Opens it, but reads no pixel.

    Raises
    ------
    SlideError
        When it cannot be opened, as :func:`~wsipipe.slide.open_slide` does.
    """
    with open_slide(path, settings) as slide:
        return _report(slide.info)


def _report(info: SlideInfo) -> SlideReport:
    return SlideReport(
        path=info.path,
        backend=info.backend,
        vendor=info.vendor,
        file_bytes=_file_bytes(info.path),
        size=info.size,
        size_mm=_millimetres(info),
        levels=info.levels,
        mpp=info.mpp,
        mpp_source=None if info.mpp_source is None else str(info.mpp_source),
        mpp_plausible=None if info.mpp is None else is_plausible(info.mpp),
        objective=info.objective,
        bounds=info.bounds,
        background=info.background,
        scenes=info.scenes,
        scene=info.scene,
        planes=info.planes,
        plane=info.plane,
        fingerprint=fingerprint(info.path),
        warnings=info.warnings,
    )


def _millimetres(info: SlideInfo) -> Pair | None:
    if info.mpp is None or not is_plausible(info.mpp):
        return None
    return info.size[0] * info.mpp[0] / 1000, info.size[1] * info.mpp[1] / 1000


def _file_bytes(path: str) -> int | None:
    """Return the size of a file, or of all files of a folder; None for URLs."""
    local = Path(path)
    if not local.exists():
        return None
    return sum(p.stat().st_size for p in local.iterdir() if p.is_file()) if local.is_dir() else local.stat().st_size
