"""The story of ``wsipipe tma``: the cores of a microarray found, named, written and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsipipe.analysis.core_names import CORE_CLASS, DRAWN, MISSING_CLASS, TORN_CLASS, read_drawn_cores, with_sheet
from wsipipe.analysis.tma import Cores, find_cores
from wsipipe.artifacts import atomic_write
from wsipipe.figure.areas import check_areas, write_areas
from wsipipe.formats.annotations import Annotation, write_annotations
from wsipipe.runs import claims
from wsipipe.schedule.progress import Progress
from wsipipe.settings import SlideSettings
from wsipipe.slide import Slide, fingerprint, open_slide, require_mpp
from wsipipe.units import Pair

CLASSES = {
    "whole": (CORE_CLASS, (0, 150, 60)),
    "torn": (TORN_CLASS, (235, 130, 0)),
    "missing": (MISSING_CLASS, (220, 30, 30)),
}
NUMBERS = ("confidence", "tissue_share", "tissue_um2", "pieces", "diameter_um")
"""Columns of the table of cores that QuPath shows as measurements."""


@dataclass(frozen=True)
class TmaJob:
    """Which slide, what names its cores, and where to write them.

    Attributes
    ----------
    names : Path, optional
        A sheet (.csv) with names, or GeoJSON with corrected cores.
    """

    slide: str
    outputs: tuple[Path, ...] = ()
    overlay: Path | None = None
    names: Path | None = None
    slide_settings: SlideSettings = field(default_factory=SlideSettings)


@claims(lambda job: (*job.outputs, job.overlay))
def run_tma(job: TmaJob, progress: Progress) -> Cores:
    """Write the cores of a slide.

    Raises
    ------
    SettingsError, SlideError, StoreError, OutputError
    """
    check_areas(job.outputs, job.overlay)
    with open_slide(job.slide, job.slide_settings) as slide:
        cores = cores_of(slide, require_mpp(slide.info, job.slide_settings), job.names, progress.say)
        about = {"size": slide.info.size, "bounds": slide.info.bounds, "fingerprint": fingerprint(slide.info.path)}
        for path in job.outputs:
            _write(path, cores, about)
        if job.overlay is not None:
            write_areas(slide, core_annotations(cores), job.overlay)
    return cores


def cores_of(slide: Slide, base_mpp: Pair, names: Path | None, tell: Callable[[str], None]) -> Cores:
    """Return the cores on *slide*, found, then named by a sheet; or as a GeoJSON file has them."""
    about = {"size": slide.info.size, "bounds": slide.info.bounds}
    drawn = names is not None and names.name.lower().endswith(DRAWN)
    cores = find_cores(slide, base_mpp, read_drawn_cores(names, about) if names is not None and drawn else ())
    for line in cores.warnings:
        tell(f"warning: {line}")
    return cores if names is None or drawn else with_sheet(cores, names, tell)


def core_annotations(cores: Cores) -> list[Annotation]:
    """Return the cores as annotations for QuPath, by row and column."""
    return [
        Annotation(
            str(row["name"]),
            *CLASSES[str(row["status"])],
            row["geometry"],
            {name: float(row[name]) for name in NUMBERS},
        )
        for row in cores.table.to_dict("records")
    ]


def _write(path: Path, cores: Cores, about: Mapping[str, Any]) -> None:
    if path.name.lower().endswith(".csv"):
        with atomic_write(path, "w") as file:
            cores.table.drop(columns="geometry").round(2).to_csv(file, index=False, lineterminator="\n")
        return
    write_annotations(path, core_annotations(cores), about)
