"""The story of ``wsipipe measure``: cells and their slide in, cells with fresh and more measurements out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsipipe._version import __version__
from wsipipe.artifacts import check_writable
from wsipipe.cells.context import Crowd
from wsipipe.errors import OutputError, SettingsError, StoreError
from wsipipe.formats.imported import SUFFIXES, import_geojson
from wsipipe.formats.parquet import CellWriter, batches, metadata, row_groups
from wsipipe.formats.subset import COUNTS
from wsipipe.formats.windows import Windows
from wsipipe.quality.kept import beside, keep, map_of
from wsipipe.quality.map import QualityMap
from wsipipe.raster import SlideRaster, slide_grid
from wsipipe.runs import claims, scratch_folder
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.corrected import AUTO, corrected
from wsipipe.segmentation.found_before import plane_of_run
from wsipipe.segmentation.measurer import Measurer
from wsipipe.segmentation.no_cells import warn_of_none
from wsipipe.segmentation.results import pass_on
from wsipipe.segmentation.stains import boxes_around, pixels_in, stain_doubts, stains_of
from wsipipe.settings import SHARPEST, MeasureSettings, SlideSettings, StainSettings, determining
from wsipipe.slide import fingerprint, open_slide, require_mpp
from wsipipe.slide.protocol import Slide
from wsipipe.units import Pair

DEFAULT_MPP = 0.5


@dataclass(frozen=True)
class MeasureJob:
    """What to measure, on which slide, and where to.

    Attributes
    ----------
    quality : Path, optional
        Where the quality map of the slide is kept; by default beside the output.
    request : str
        Digest of what was asked for, which the run record beside the output tells.
    corrections : str
        As of :mod:`wsipipe.segmentation.corrected`.
    """

    cells: Path
    slide: str
    output: Path
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    slide_settings: SlideSettings = field(default_factory=SlideSettings)
    stain: StainSettings = field(default_factory=StainSettings)
    quality: Path | None = None
    request: str = ""
    corrections: str = AUTO


@dataclass(frozen=True)
class Measured:
    """Cells written, the names of their measurements, objects left out, and cells too small to have a pixel."""

    cells: int
    columns: tuple[str, ...]
    left_out: int = 0
    bad: int = 0

    @property
    def doubts(self) -> tuple[str, ...]:
        """What there is to say of it, in lines."""
        left = f"{self.left_out:,} objects are no outlines of cells (regions, points, lines) and were left out"
        lost = f"{self.bad} areas could not be read; cells there are measured on background"
        return (*([left] if self.left_out else []), *([lost] if self.bad else []))


@claims(lambda job: (job.output,))
def run_measure(job: MeasureJob, progress: Progress) -> Measured:
    """Measure cells anew on their slide, and add what is asked for.

    Raises
    ------
    StoreError, SettingsError, SlideError, OutputError
        What stood at the output is untouched.
    """
    _check_output(job)
    settings = job.slide_settings
    if _is_master(job.cells):
        about = metadata(job.cells)
        settings = replace(settings, mpp=settings.mpp or float(about["mpp"][0]), plane=plane_of_run(settings, about))
    with open_slide(job.slide, settings) as slide, _master(job, slide, progress) as (master, left_out):
        about = metadata(master)
        for line in slide.info.warnings if settings.plane == SHARPEST else ():
            progress.say(f"warning: {line}")
        warn_of_none(job.cells, about, progress)
        raster = _raster(job, slide, about)
        _check_places(job, master, about)
        seen = lambda: pixels_in(raster, boxes_around(master, raster))  # noqa: E731
        vectors, told = stains_of(job.stain.stain_vectors, seen, about.get("stain_vectors"))
        if told:
            progress.say(told)
        for line in stain_doubts(job.stain.stain_vectors, vectors, seen):
            progress.say(f"warning: {line}")
        with contextlib.closing(Windows(master)) as windows:
            quality = _quality(job, slide, (about["mpp"][0], about["mpp"][1]))
            measurer = Measurer(raster, job.measure, windows, _crowd(master, about, job.measure), vectors, quality)
            cells = _write(job, master, about, measurer, progress)
        told_of = {"request": job.request, "cells": cells, "size": job.output.stat().st_size}
        pass_on(job.cells, job.output, job.slide, told_of if job.request else {})
        return Measured(cells, tuple(measurer.names), left_out, len(raster.bad))


def _check_output(job: MeasureJob) -> None:
    if job.output.suffix != ".parquet":
        raise OutputError(f"{job.output}: measured cells are a .parquet (`wsipipe convert` makes the rest of it)")
    check_writable(job.output)


def _is_master(path: Path) -> bool:
    return not path.name.endswith(SUFFIXES)


@contextlib.contextmanager
def _master(job: MeasureJob, slide: Slide, progress: Progress) -> Iterator[tuple[Path, int]]:
    """Yield the master file of the cells, as they were corrected, and how many objects of a GeoJSON file are none."""
    if _is_master(job.cells):
        with corrected(job.cells, job.corrections, job.output, progress.say) as master:
            yield master, 0
        return
    info, base = slide.info, require_mpp(slide.info, job.slide_settings)
    mpp = job.measure.measure_mpp or DEFAULT_MPP
    about = {
        "fingerprint": fingerprint(job.slide),
        "size": list(info.size),
        "bounds": list(info.bounds) if info.bounds else None,
        "mpp": list(base),
        "mpp_source": str(info.mpp_source or "override"),
        **({"plane": info.plane} if info.planes else {}),
        "working_mpp": list(slide_grid(info, base, mpp, allow_upsample=True).mpp),
        "imported": job.cells.name,
        "version": __version__,
    }
    with scratch_folder(job.output) as folder:
        master = folder / "cells.parquet"
        yield master, import_geojson(job.cells, master, about).left_out


def _raster(job: MeasureJob, slide: Slide, about: dict[str, Any]) -> SlideRaster:
    """Return the slide's pixels at the resolution of the measurements."""
    found = fingerprint(job.slide)
    if found != about["fingerprint"]:
        raise SettingsError(f"--slide {job.slide}: not the slide that these cells were found on (fingerprints differ)")
    mpp = job.measure.measure_mpp or (about.get("working_mpp") or about["mpp"])[0]
    base = about["mpp"][0], about["mpp"][1]
    return SlideRaster(slide, slide_grid(slide.info, base, mpp, allow_upsample=True), found)


def _check_places(job: MeasureJob, master: Path, about: dict[str, Any]) -> None:
    """Refuse cells whose centre does not lie on the slide: there is nothing to measure."""
    width, height = about["size"]
    outside, first = 0, ""
    for table in batches(master, ["cell_id", "x", "y"]):
        x, y = table["x"].to_numpy(), table["y"].to_numpy()
        lost = np.flatnonzero(~((x >= 0) & (x <= width) & (y >= 0) & (y <= height)))
        if len(lost) and not outside:
            first = f"{table['cell_id'][int(lost[0])]} at {x[lost[0]]:.0f},{y[lost[0]]:.0f}"
        outside += len(lost)
    if outside:
        raise StoreError(
            f"{job.cells}: {outside:,} of {about['cells']:,} cells lie outside the slide (the first: {first}); "
            f"expected level-0 pixels of {job.slide}, {width} x {height}: give the slide they were drawn on, or export "
            "them again"
        )


def _quality(job: MeasureJob, slide: Slide, base_mpp: Pair) -> QualityMap | None:
    """Return the quality map of the slide, kept or made now and then kept; None where nobody asks for it."""
    if "quality" not in job.measure.added:
        return None
    place = job.quality or beside(job.output)
    found = map_of(slide, base_mpp, (place, beside(job.cells)))
    keep(place, found)
    return found


def _crowd(master: Path, about: dict[str, Any], settings: MeasureSettings) -> Crowd | None:
    """Return the centres of all cells, if neighbours are asked for."""
    if "neighbours" not in settings.added:
        return None
    table = pq.read_table(master, columns=["x", "y"])
    return Crowd(np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()]) * np.array(about["mpp"]))


def _write(job: MeasureJob, master: Path, about: dict[str, Any], measurer: Measurer, progress: Progress) -> int:
    kept = {key: value for key, value in about.items() if key not in COUNTS}
    kept["measured"] = determining(job.measure) | {"mpp": list(measurer.raster.grid.mpp)}
    kept["stain_vectors"] = measurer.vectors.as_dict()
    schema = measurer.schema(pq.read_schema(master).remove_metadata())
    progress.start("cells", about["cells"])
    with CellWriter(job.output, schema, kept) as writer:
        for table in row_groups(master):
            measured = measurer.table(table)
            writer.write(measured.select(schema.names).cast(schema))
            progress.advance("cells", table.num_rows)
    return writer.cells


def totals(path: Path, names: tuple[str, ...]) -> list[tuple[str, float, float, float]]:
    """Return name, 5th percentile, median and 95th percentile of the columns *names* of a master file."""
    rows = []
    for name in names:
        values: NDArray[Any] = pc.drop_null(pq.read_table(path, columns=[name])[name]).to_numpy()
        values = values[np.isfinite(values)]
        low, middle, high = np.percentile(values, (5, 50, 95)).tolist() if len(values) else (np.nan,) * 3
        rows.append((name, low, middle, high))
    return rows
