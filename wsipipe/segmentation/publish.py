"""The end of a run: parts are merged into the files that were asked for, and the run is recorded."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from wsipipe._version import __version__
from wsipipe.artifacts import copy_file, remove_leftovers, write_json
from wsipipe.errors import SlideError
from wsipipe.figure.overlay import write_overlay
from wsipipe.formats.colours import Rgb, class_colours
from wsipipe.formats.exports import Style, format_of
from wsipipe.formats.parquet import merge_parts
from wsipipe.models.zoo import shipped
from wsipipe.raster.unreadable import covered_px
from wsipipe.report.plausible import doubts, totals
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.scratch import Scratch
from wsipipe.schedule.task import Board, Receipt
from wsipipe.segmentation.job import QUALITY, SegmentJob, SegmentResult
from wsipipe.segmentation.prepare import Prepared
from wsipipe.segmentation.request import Network, slide_fingerprint
from wsipipe.slide import Stamp, changed, open_slide, stamp
from wsipipe.units import Box


@dataclass(frozen=True)
class Done:
    """The tasks of a run, all done.

    Attributes
    ----------
    kept : tuple of int
        Blocks whose maps, and whose cells, an interrupted run had left.
    request : str
        See :func:`wsipipe.segmentation.request.request_of`.
    started : float
        By the monotonic clock.
    """

    receipts: Sequence[Receipt]
    lanes: tuple[int, int] = (1, 1)
    kept: tuple[int, int] = (0, 0)
    request: str = ""
    started: float = field(default_factory=time.monotonic)


def publish(job: SegmentJob, prepared: Prepared, done: Done, progress: Progress) -> SegmentResult:
    """Merge the parts into the outputs, draw the overlay, write the run record, and clear the working folder.

    Raises
    ------
    SlideError
        When too much of the slide could not be read, or its file changed meanwhile; nothing is written then.
    """
    check_slide(job, prepared)
    progress.start("writing", len(job.wanted))
    begin = time.monotonic()
    scratch = Scratch(job.work / prepared.plan.key)
    bad = scratch.all_bad()
    if (share := bad_share(bad, prepared)) > job.run.max_bad_tiles:
        raise SlideError(
            f"{job.source}: {share:.1%} of the analysed area cannot be read, more than --max-bad-tiles "
            f"{job.run.max_bad_tiles:.1%}; the file is damaged (nothing was written)"
        )
    um2 = analysed_um2(bad, prepared)
    master = next((p for p in job.outputs if p.suffix == ".parquet"), scratch.folder / "cells.parquet")
    parts = [scratch.part(b) for b in Board(prepared.plan).all_cells] or [prepared.empty_part(scratch)]
    found = scratch.folder / "found.parquet" if job.types.types else master
    cells = merge_parts(parts, found, file_metadata(prepared, bad, um2))
    if job.types.types:
        from wsipipe.segmentation.typed import give_types  # see prepare

        give_types(job, found, master, prepared.info.path, prepared.base_mpp, progress)
    unlikely = [told for _, told in doubts(totals(master), um2 * 1e-6)]
    for warning in unlikely:
        progress.say(f"warning: {warning}")
    warnings = (*prepared.warnings, *unlikely)
    written = list(_outputs(job, prepared, master, progress))
    seconds: dict[str, float] = defaultdict(float)
    for stage, value in (item for receipt in done.receipts for item in receipt.seconds.items()):
        seconds[stage] += value
    seconds["write"] += time.monotonic() - begin
    seconds["prepare"] += prepared.seconds
    wall = time.monotonic() - done.started
    result = SegmentResult(cells, um2 * 1e-6, wall, dict(seconds), warnings, len(bad), share, True, done.lanes)
    if (quality := scratch.folder / QUALITY).exists():
        copy_file(quality, job.quality_map)
    write_json(job.record, run_record(job, prepared, result, done, written))
    clear(job)
    return result


def check_slide(job: SegmentJob, prepared: Prepared) -> None:
    """Raise SlideChanged when the original is not any more the file that the plan was made for."""
    plan, now = prepared.plan, stamp(job.source)
    if tuple(now) != tuple(plan.stamp) or slide_fingerprint(job.source) != plan.slide_fingerprint:
        raise changed(job.source, Stamp(*plan.stamp), now)


def clear(job: SegmentJob) -> None:
    """Remove the working state of a finished run, and what runs that were killed while writing have left."""
    shutil.rmtree(job.work, ignore_errors=True)
    for path in (*job.wanted, job.record, job.quality_map):
        remove_leftovers(path)


def _outputs(job: SegmentJob, prepared: Prepared, master: Path, progress: Progress) -> Iterable[Path]:
    """Write everything that derives from the *master* file; yield every file that is there now."""
    for path in job.outputs:
        if path.suffix != ".parquet":
            yield from format_of(path).write(master, path, Style(job.export))
        else:
            if path != master:
                shutil.copyfile(master, path)
            yield path
        progress.advance("writing")
    if job.overlay:
        plane = str(prepared.info.plane) if prepared.info.planes else job.slide.plane
        with open_slide(prepared.info.path, replace(job.slide, mpp=prepared.base_mpp[0], plane=plane)) as slide:
            write_overlay(slide, master, job.overlay, region=job.bounds)
        progress.advance("writing")
        yield job.overlay


def bad_share(bad: Sequence[Box], prepared: Prepared) -> float:
    """Return the share of the analysed pixels that cannot be read."""
    if not bad:
        return 0.0
    plan = prepared.plan
    tiles = plan.tiles.boxes()[plan.selected]
    width, height = plan.working.size
    return covered_px(np.asarray(bad)) / covered_px(np.minimum(tiles, (width, height, width, height)))


def analysed_um2(bad: Sequence[Box], prepared: Prepared) -> float:
    """Return the analysed tissue in µm²: what could be read of it."""
    if not bad or not prepared.tissue.polygons:
        return prepared.tissue_um2
    tissue: BaseGeometry = shapely.MultiPolygon(prepared.tissue.polygons)
    if prepared.plan.bounds is not None:
        tissue = shapely.intersection(tissue, shapely.box(*prepared.plan.bounds))
    boxes = shapely.union_all([shapely.box(*prepared.plan.working.base_box(box)) for box in bad])
    lost = shapely.intersection(tissue, boxes).area * prepared.base_mpp[0] * prepared.base_mpp[1]
    return max(0.0, prepared.tissue_um2 - float(lost))


def file_metadata(prepared: Prepared, bad: Sequence[Box], tissue_um2: float) -> dict[str, Any]:
    """Return what the master file says of itself: only what determines the result."""
    info, network, plan = prepared.info, prepared.network, prepared.plan
    card, boxes = network.card, [tuple(round(v) for v in plan.working.base_box(box)) for box in bad]
    return {
        "fingerprint": plan.slide_fingerprint,
        "run_fingerprint": prepared.fingerprint,
        "size": list(info.size),
        "bounds": list(info.bounds) if info.bounds else None,
        "mpp": list(prepared.base_mpp),
        "mpp_source": str(info.mpp_source or "override"),
        **({"plane": info.plane} if info.planes else {}),
        "working_mpp": list(plan.working.mpp),
        "model": {"name": card.name, "sha256": network.sha256, "licence": card.licence},
        "classes": {name: list(rgb) for name, rgb in own_colours(network).items()},
        "recipe": plan.recipe,
        "stain": prepared.stain,
        "stain_vectors": plan.stain_vectors,
        "settings": prepared.settings,
        "analysed": list(plan.bounds) if plan.bounds else None,
        "tissue_area_um2": round(tissue_um2, 3),
        "bad_boxes": boxes,
        "version": __version__,
    }


def own_colours(network: Network) -> dict[str, Rgb]:
    """Return the classes of a model in its colours; in today's, of a shipped model, whose file may have older ones."""
    classes = network.card.classes
    return class_colours(list(classes) if network.name in shipped() else classes)


def run_record(
    job: SegmentJob, prepared: Prepared, result: SegmentResult, done: Done, written: Sequence[Path]
) -> dict[str, Any]:
    """Return the run record: what was run, when, where, how fast, and the outputs with their sizes."""
    plan = prepared.plan
    predicted, finished = done.kept
    return {
        "request": done.request,
        "fingerprint": prepared.fingerprint,
        "slide_fingerprint": plan.slide_fingerprint,
        "asked": [path.name for path in job.wanted],
        "outputs": {path.name: path.stat().st_size for path in written},
        "cells": result.cells,
        "tissue_mm2": result.tissue_mm2,
        "cells_per_mm2": result.density,
        "bad_boxes": result.bad_boxes,
        "bad_share": result.bad_share,
        "seconds": {k: round(v, 3) for k, v in result.seconds.items()} | {"wall": round(result.wall, 3)},
        "bottleneck": result.bottleneck,
        "warnings": list(result.warnings),
        "slide": job.source if "://" in job.source else os.path.abspath(job.source),
        "slide_file": Stamp(*plan.stamp)._asdict(),
        "model": plan.model,
        "settings": prepared.settings,
        "stain": prepared.stain,
        "recipe": plan.recipe,
        "run": asdict(plan.run),
        "cluster": asdict(job.cluster),
        "tiles": int(plan.selected.sum()),
        "blocks": len(plan.blocks),
        "kept": {"predicted": predicted, "finished": finished},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "version": __version__,
    }
