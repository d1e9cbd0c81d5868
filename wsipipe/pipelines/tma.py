"""The story of ``wsipipe tma``: the cores of a microarray found, named, written and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsipipe.analysis.core_names import core_annotations, cores_of
from wsipipe.analysis.tma import Cores
from wsipipe.artifacts import atomic_write
from wsipipe.figure.areas import check_areas, write_areas
from wsipipe.formats.annotations import write_annotations
from wsipipe.runs import claims
from wsipipe.schedule.progress import Progress
from wsipipe.settings import SHARPEST, SlideSettings
from wsipipe.slide import fingerprint, open_slide, require_mpp


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
        for line in slide.info.warnings if job.slide_settings.plane == SHARPEST else ():
            progress.say(f"warning: {line}")
        cores = cores_of(slide, require_mpp(slide.info, job.slide_settings), job.names, progress.say)
        about = {"size": slide.info.size, "bounds": slide.info.bounds, "fingerprint": fingerprint(slide.info.path)}
        for path in job.outputs:
            _write(path, cores, about)
        if job.overlay is not None:
            write_areas(slide, core_annotations(cores), job.overlay)
    return cores


def _write(path: Path, cores: Cores, about: Mapping[str, Any]) -> None:
    if path.name.lower().endswith(".csv"):
        with atomic_write(path, "w") as file:
            cores.table.drop(columns="geometry").round(2).to_csv(file, index=False, lineterminator="\n")
        return
    write_annotations(path, core_annotations(cores), about)
