"""The story of `wsipipe segment`: a slide in, every cell as a polygon out."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely

from wsipipe.artifacts import atomic_write, check_writable, write_json
from wsipipe.errors import OutputError, SlideError
from wsipipe.formats.geojson import write_geojson
from wsipipe.formats.parquet import merge_parts, read_cells
from wsipipe.overlay import write_overlay
from wsipipe.pipelines.dry_run import check_memory
from wsipipe.pipelines.prepare import Prepared, bad_share, file_metadata, prepare, run_record
from wsipipe.predict import SmallerBatch
from wsipipe.schedule import pool
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores
from wsipipe.schedule.scratch import Scratch
from wsipipe.schedule.task import PREDICT, Board, Plan, Receipt
from wsipipe.schedule.work import Worker
from wsipipe.settings import CellSettings, ExportSettings, GridSettings, RunSettings, SlideSettings, TissueSettings
from wsipipe.slide import open_slide
from wsipipe.units import Box

if TYPE_CHECKING:
    import geopandas

SUFFIXES = (".parquet", ".geojson", ".geojson.gz")


@dataclass(frozen=True)
class SegmentJob:
    """What to segment, how, and where the cells go.

    Attributes
    ----------
    source : str
        Slide, picture, or tile store made by ``wsipipe tile``.
    outputs : tuple of Path
        Each ends in ``.parquet``, ``.geojson`` or ``.geojson.gz``.
    model : str
        Name of a shipped model, or a checkpoint.
    bounds : Box, optional
        Only cells with their centroid in this box of base pixels.
    overlay : Path, optional
        PNG of the outlines over the slide.
    """

    source: str
    outputs: tuple[Path, ...]
    model: str = "cmd-t"
    bounds: Box | None = None
    overlay: Path | None = None
    force: bool = False
    slide: SlideSettings = field(default_factory=SlideSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)
    grid: GridSettings = field(default_factory=GridSettings)
    cells: CellSettings = field(default_factory=CellSettings)
    run: RunSettings = field(default_factory=RunSettings)
    export: ExportSettings = field(default_factory=ExportSettings)

    @property
    def work(self) -> Path:
        """Folder of the unfinished run, beside the first output."""
        return self.outputs[0].parent / f".{self.outputs[0].name}.work"

    @property
    def record(self) -> Path:
        """The run record, beside the first output."""
        name = self.outputs[0].name
        stem = next((name.removesuffix(s) for s in SUFFIXES[::-1] if name.endswith(s)), name)
        return self.outputs[0].parent / f"{stem}.run.json"


@dataclass(frozen=True)
class SegmentResult:
    """What a run found and how long it took.

    Attributes
    ----------
    seconds : mapping of stage to seconds
        Summed over workers.
    fresh : bool
        False when the outputs were there already, made by the same slide, model, settings and version.
    """

    cells: int
    tissue_mm2: float
    wall: float
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    bad_boxes: int = 0
    fresh: bool = True

    @property
    def density(self) -> float:
        """Cells per mm² of analysed tissue."""
        return self.cells / self.tissue_mm2 if self.tissue_mm2 else 0.0

    @property
    def bottleneck(self) -> str:
        """The stage that took longest."""
        return max(self.seconds, key=lambda stage: self.seconds[stage], default="none")


def segment(
    slide: str | Path, /, *outputs: str | Path, progress: Progress | None = None, **options: Any
) -> geopandas.GeoDataFrame:
    """Return the cells of *slide*, one row each; also write them to *outputs* when any are given.

    Parameters
    ----------
    slide : path
        Slide, picture, or tile store.
    *outputs : path
        Files ending in ``.parquet``, ``.geojson`` or ``.geojson.gz``.
    progress : Progress, optional
    **options
        Fields of :class:`SegmentJob`, such as ``model="cmd-t"``, ``bounds=(0, 0, 4096, 4096)``,
        or whole settings objects: ``tissue=TissueSettings(tissue="none")``.

    Returns
    -------
    geopandas.GeoDataFrame
        Geometry in level-0 pixels; columns as in ``docs/outputs.md``.

    Examples
    --------
    >>> cells = wsipipe.segment("slide.svs", "cells.geojson")  # doctest: +SKIP
    """
    with tempfile.TemporaryDirectory() as folder:
        master = Path(folder) / "cells.parquet"
        job = SegmentJob(str(slide), (*map(Path, outputs), master), **options)
        run_segment(job, progress or Progress())
        return read_cells(master)


def run_segment(job: SegmentJob, progress: Progress) -> SegmentResult:
    """Segment a slide and write its outputs; resume what an interrupted run left behind.

    Raises
    ------
    WsipipeError
        Outputs that were there before are untouched.
    """
    check_outputs(job)
    started = time.monotonic()
    batch = job.run.batch
    while True:
        prepared = prepare(job, progress, batch)
        if not job.force and (earlier := finished_before(job, prepared)):
            return earlier
        check_memory(prepared)
        try:
            receipts = execute(job, prepared, progress)
        except SmallerBatch as error:  # the device ran out of memory: the slide restarts under a new recipe
            progress.say(str(error))
            batch = error.batch
            continue
        return publish(job, prepared, receipts, progress, started)


def check_outputs(job: SegmentJob) -> None:
    """Raise OutputError when an output has an unknown ending or cannot be written, before any work is done."""
    for path in job.outputs:
        if not path.name.endswith(SUFFIXES):
            raise OutputError(f"{path}: unknown kind of output; expected a name ending in {', '.join(SUFFIXES)}")
    for path in (*job.outputs, *([job.overlay] if job.overlay else [])):
        check_writable(path)


def finished_before(job: SegmentJob, prepared: Prepared) -> SegmentResult | None:
    """Return the result of an earlier run with the same fingerprint whose outputs are all still there."""
    wanted = [*job.outputs, *([job.overlay] if job.overlay else [])]
    if not job.record.is_file() or not all(path.is_file() for path in wanted):
        return None
    try:
        record = json.loads(job.record.read_text())
        same = record["fingerprint"] == prepared.fingerprint and set(record["outputs"]) >= {p.name for p in wanted}
        if not same or any(p.stat().st_size != record["outputs"][p.name] for p in wanted):
            return None
        return SegmentResult(record["cells"], record["tissue_mm2"], 0.0, {}, (), record["bad_boxes"], fresh=False)
    except (ValueError, KeyError, TypeError):
        return None


def execute(job: SegmentJob, prepared: Prepared, progress: Progress) -> list[Receipt]:
    """Run every task of the plan that is not done yet, and return the receipts."""
    scratch, plan = open_work(job.work, prepared), prepared.plan
    board = Board(plan, scratch.predicted(), scratch.finished())
    receipts: list[Receipt] = []
    progress.start("tiles", sum(len(plan.tiles_of(b)) for b in board.to_predict))
    progress.start("cells", len(board.all_cells) - len(board.finished))

    def report(receipt: Receipt) -> None:
        receipts.append(receipt)
        stage, steps = ("tiles", receipt.count) if receipt.task.kind == PREDICT else ("cells", 1)
        progress.advance(stage, steps)

    if job.run.workers > 1 and not board.done:
        from wsipipe.schedule import dask

        def announce(link: str) -> None:
            progress.say(f"dashboard {link}")

        dask.run(job.work, plan.fingerprint, board, job.run.workers, report, announce)
    else:
        pool.run(Worker(job.work, prepared.predictor), board, report, allowed_cores())
    return receipts


def open_work(folder: Path, prepared: Prepared) -> Scratch:
    """Return the scratch files of the run; those of another plan are removed first."""
    scratch = Scratch(folder)
    plan_file = folder / "plan.json"
    if plan_file.exists() and not _same_plan(folder, prepared.plan):
        shutil.rmtree(folder)
    if not plan_file.exists():
        scratch.create()
        with atomic_write(folder / "tissue.wkb") as file:
            file.write(shapely.to_wkb(shapely.MultiPolygon(prepared.tissue.polygons)))
        prepared.plan.save(folder)
    return scratch


def _same_plan(folder: Path, plan: Plan) -> bool:
    try:
        found = Plan.load(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return (found.fingerprint, found.run.block, found.shift) == (plan.fingerprint, plan.run.block, plan.shift)


def publish(
    job: SegmentJob, prepared: Prepared, receipts: list[Receipt], progress: Progress, started: float
) -> SegmentResult:
    """Merge the parts into the outputs, draw the overlay, write the run record, and clear the working folder."""
    progress.start("writing", len(job.outputs) + bool(job.overlay))
    begin = time.monotonic()
    bad = Scratch(job.work).all_bad()
    if (share := bad_share(bad, prepared)) > job.run.max_bad_tiles:
        raise SlideError(
            f"{job.source}: {share:.1%} of the analysed area cannot be read, more than --max-bad-tiles "
            f"{job.run.max_bad_tiles:.1%}; the file is damaged (nothing was written)"
        )
    master = next((p for p in job.outputs if p.suffix == ".parquet"), job.work / "cells.parquet")
    parts = [Scratch(job.work).part(b) for b in Board(prepared.plan).all_cells] or [prepared.empty_part(job.work)]
    cells = merge_parts(parts, master, file_metadata(prepared, bad))
    for path in job.outputs:
        if path.suffix == ".parquet" and path != master:
            shutil.copyfile(master, path)
        elif path.suffix != ".parquet":
            write_geojson(master, path, job.export)
        progress.advance("writing")
    if job.overlay:
        with open_slide(prepared.info.path, replace(job.slide, mpp=prepared.base_mpp[0])) as slide:
            write_overlay(slide, master, job.overlay, region=job.bounds)
        progress.advance("writing")
    seconds: dict[str, float] = {}
    for receipt in receipts:
        for stage, value in receipt.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
    seconds["write"] = seconds.get("write", 0.0) + time.monotonic() - begin
    seconds["prepare"] = prepared.seconds
    mm2 = prepared.tissue_um2 * 1e-6
    result = SegmentResult(cells, mm2, time.monotonic() - started, seconds, prepared.warnings, len(bad))
    write_json(job.record, run_record(job, prepared, result))
    shutil.rmtree(job.work, ignore_errors=True)
    return result
