"""The story of ``wsipipe quality``: what is wrong with a slide, as areas and numbers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsipipe.artifacts import atomic_write
from wsipipe.figure.areas import check_areas, write_areas
from wsipipe.formats.annotations import Annotation, write_annotations
from wsipipe.quality.kept import beside, keep, map_of
from wsipipe.quality.map import COLOURS, FAULTS, Quality, QualityMap
from wsipipe.report.faults import Fault, fault_rows
from wsipipe.runs import claims
from wsipipe.schedule.progress import Progress, Reached
from wsipipe.segmentation.found_before import open_pair
from wsipipe.settings import SlideSettings
from wsipipe.slide import fingerprint, require_mpp

STEPS = 1000


@dataclass(frozen=True)
class QualityJob:
    """Which slide, and where to write.

    Attributes
    ----------
    cells : Path, optional
        A master file whose cells are counted in each kind of area.
    """

    slide: str
    outputs: tuple[Path, ...] = ()
    overlay: Path | None = None
    cells: Path | None = None
    slide_settings: SlideSettings = field(default_factory=SlideSettings)


@dataclass(frozen=True)
class QualityFound:
    """The table, and what there is to say."""

    rows: tuple[Fault, ...]
    warnings: tuple[str, ...]


@claims(lambda job: (*job.outputs, job.overlay))
def run_quality(job: QualityJob, progress: Progress) -> QualityFound:
    """Write the areas of a slide with a fault.

    Raises
    ------
    SettingsError, SlideError, StoreError, OutputError
    """
    check_areas(job.outputs, job.overlay)
    slide, warnings = open_pair(job.slide, job.cells, job.slide_settings)
    with slide:
        progress.start("quality", STEPS)
        reached = Reached(progress, "quality")
        kept = [beside(job.cells)] if job.cells else []
        mpp = require_mpp(slide.info, job.slide_settings)
        found = map_of(slide, mpp, kept, lambda share: reached(round(share * STEPS)))
        for path in kept:
            keep(path, found)
        areas = {kind: _annotations(found, kind) for kind in FAULTS}
        rows = fault_rows(found, job.cells)
        about = {"size": slide.info.size, "bounds": slide.info.bounds, "fingerprint": fingerprint(slide.info.path)}
        every = [area for kind in FAULTS for area in areas[kind]]
        for path in job.outputs:
            _write(path, every, rows, about)
        if job.overlay is not None:
            write_areas(slide, every, job.overlay, named=False, fill=0.35)
    return QualityFound(rows, (*warnings, *found.warnings))


def _annotations(found: QualityMap, kind: Quality) -> list[Annotation]:
    """Return the areas of a kind, numbered from top to bottom."""
    um2 = found.mpp**2 / (found.scale[0] * found.scale[1])
    name = kind.label.capitalize()
    return [
        Annotation(f"{name} {k}", name, COLOURS[kind], shape, {"area_um2": round(shape.area * um2, 1)})
        for k, shape in enumerate(found.areas(kind), 1)
    ]


def _write(path: Path, areas: Sequence[Annotation], rows: Sequence[Fault], about: Mapping[str, Any]) -> None:
    if not path.name.lower().endswith(".csv"):
        write_annotations(path, areas, about)
        return
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["quality", "area_mm2", "share", "areas", *(["cells"] if rows[0].cells is not None else [])])
        for row in rows:
            cells = [] if row.cells is None else [row.cells]
            writer.writerow([row.kind.label, round(row.area_mm2, 6), round(row.share, 6), row.areas, *cells])
