"""The story of `wsipipe segment`: a slide in, every cell as a polygon out."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely

from wsipipe.artifacts import atomic_write, check_writable, remove_leftovers
from wsipipe.errors import OutputError
from wsipipe.formats.exports import file_endings
from wsipipe.formats.parquet import read_cells
from wsipipe.models.device import SmallerBatch
from wsipipe.quality.kept import write as write_quality
from wsipipe.runs import Lease, acquire
from wsipipe.schedule.engine import Engine
from wsipipe.schedule.engines import open_engine
from wsipipe.schedule.progress import Progress, TileCount
from wsipipe.schedule.scratch import Scratch
from wsipipe.schedule.task import PREDICT, Board, Plan, Receipt
from wsipipe.segmentation.job import QUALITY, SegmentJob, SegmentResult
from wsipipe.segmentation.memory import check_memory
from wsipipe.segmentation.origin import refuse_another
from wsipipe.segmentation.prepare import Prepared, prepare
from wsipipe.segmentation.publish import Done, clear, publish
from wsipipe.segmentation.request import Network, check_request, finished_before, network_of, request_of

if TYPE_CHECKING:
    import geopandas


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
        Fields of :class:`~wsipipe.segmentation.job.SegmentJob`, such as ``model="cmd-t"``,
        ``bounds=(0, 0, 4096, 4096)``, or whole settings objects: ``tissue=TissueSettings(tissue="none")``.

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
    with acquire(job.outputs[0]) as lease, open_engine(job.run, job.cluster, progress.say) as engine:
        network = network_of(job, engine)
        request = request_of(job, network)
        if not job.force and (earlier := finished_before(job, request)):
            clear(job)
            for warning in earlier.warnings:
                progress.say(f"warning: {warning}")
            return earlier
        refuse_another(job)
        prepared, done = compute(job, network, engine, progress, lease)
        check_request(job, network, request)
        return publish(job, prepared, replace(done, request=request, started=started), progress)


def check_outputs(job: SegmentJob) -> None:
    """Raise OutputError when an output has an unknown ending or cannot be written, before any work is done."""
    for path in job.outputs:
        if path.name.endswith(".zarr"):
            raise OutputError(
                f"{path}: segment writes single files, convert the rest: `wsipipe segment ... -o cells.parquet`, then "
                f"`wsipipe convert cells.parquet -o {path}`"
            )
        if not path.name.endswith(file_endings()):
            raise OutputError(f"{path}: unknown kind of output; expected a name ending in {', '.join(file_endings())}")
    for path in job.wanted:
        check_writable(path)


def compute(
    job: SegmentJob,
    network: Network,
    engine: Engine,
    progress: Progress,
    lease: Lease | None = None,
    prepared: Prepared | None = None,
) -> tuple[Prepared, Done]:
    """Do every task of a slide, in smaller batches when the device runs out of memory.

    Parameters
    ----------
    prepared : Prepared, optional
        The slide, when it was prepared ahead.
    """
    batch = 0
    while True:
        prepared = prepared or prepare(job, progress, network, batch)
        if engine.local:
            check_memory(prepared, engine.lanes[1])
        try:
            return prepared, execute(job, prepared, engine, progress, lease)
        except SmallerBatch as error:  # the slide restarts under a new recipe
            progress.say(str(error))
            batch, prepared = error.batch, None
            network = network_of(job, engine, batch)


def execute(
    job: SegmentJob, prepared: Prepared, engine: Engine, progress: Progress, lease: Lease | None = None
) -> Done:
    """Run every task of the plan that is not done yet."""
    scratch, plan = open_work(job.work, prepared), prepared.plan
    board = Board(plan, scratch.predicted(), scratch.finished())
    kept = len(board.predicted), len(board.finished)
    receipts, tiles = list[Receipt](), TileCount(progress)
    progress.start("tiles", sum(len(plan.tiles_of(b)) for b in board.to_predict))
    progress.start("cells", len(board.all_cells) - len(board.finished))

    def report(receipt: Receipt) -> None:
        if lease is not None:
            lease.check()
        receipts.append(receipt)
        if receipt.task.kind == PREDICT:
            tiles.so_far(receipt.task.block, receipt.count)
        else:
            progress.advance("cells")

    if not board.done:
        engine.run(scratch.folder, board, report, tiles.so_far)
    return Done(receipts, engine.lanes, kept)


def open_work(work: Path, prepared: Prepared) -> Scratch:
    """Return the scratch files of the run, in a folder of *work* that is named after the plan; others are removed.

    The plan is written anew: what stands there may be damaged, or name another copy of the slide.
    """
    scratch = Scratch(work / prepared.plan.key)
    for other in work.iterdir() if work.is_dir() else ():
        if other != scratch.folder or not scratch.is_whole():
            _remove(other)
    found = _plan_in(scratch.folder)
    if found is not None and found.stamp != prepared.plan.stamp:
        _remove(scratch.folder)  # maps of another file under the same name
    scratch.create()
    with atomic_write(scratch.folder / "tissue.wkb") as file:
        file.write(shapely.to_wkb(shapely.MultiPolygon(prepared.tissue.polygons)))
    prepared.plan.save(scratch.folder)
    if prepared.tissue.quality is not None:
        write_quality(scratch.folder / QUALITY, prepared.tissue.quality)
    for folder in (scratch.folder, scratch.maps_folder, scratch.parts_folder):
        remove_leftovers(folder / "*")
    return scratch


def _plan_in(folder: Path) -> Plan | None:
    """Return the plan that *folder* holds, None where there is none."""
    try:
        return Plan.load(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove(path: Path) -> None:
    """Remove a file or folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
