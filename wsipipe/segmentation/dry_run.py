"""What `wsipipe segment --dry-run` says: the size of the work and what it needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wsipipe.schedule.pool import PoolEngine
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import free_memory
from wsipipe.schedule.task import Board
from wsipipe.segmentation.batch import BatchJob
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.memory import memory_bytes
from wsipipe.segmentation.outcome import Attempt
from wsipipe.segmentation.prepare import Prepared, prepare
from wsipipe.segmentation.request import network_of


def estimate(job: SegmentJob, progress: Progress) -> list[tuple[str, str]]:
    """Return lines (name, text) on the work of *job* without doing it."""
    prepared = prepare(job, progress)
    plan, info = prepared.plan, prepared.info
    tiles = int(plan.selected.sum())
    board = Board(plan)
    forward = forward_seconds(prepared) * tiles
    memory = memory_bytes(prepared)
    grid = plan.working
    (width, height), name = info.size, prepared.network.card.name
    mpp, pieces = f"{prepared.base_mpp[0]:.4g} µm/px ({info.mpp_source})", len(prepared.tissue.polygons)
    return [
        ("slide", f"{job.source}: {width:,} x {height:,} px, {mpp}, {info.backend}"),
        ("tissue", f"{prepared.tissue_um2 * 1e-6:.3g} mm² in {pieces} pieces ({prepared.tissue.source})"),
        ("grid", f"{grid.size[0]:,} x {grid.size[1]:,} px at {grid.mpp[0]:.4g} µm/px, from level {grid.level}"),
        ("model", "{name} on {device} in {dtype}, {batch} tiles a pass".format(**plan.recipe | {"name": name})),
        ("tiles", f"{tiles:,} of {plan.selected.size:,} ({plan.tiles.side} px, overlap {plan.tiles.overlap} px)"),
        ("blocks", f"{len(board.all_cells):,} of {plan.run.block} px, halo {plan.halo} px"),
        ("pixels", f"{tiles * plan.tiles.stride**2 * 3 / 2**20:,.0f} MiB of RGB at the working resolution"),
        ("memory", f"about {memory / 2**30:.1f} GiB besides the model; {free_memory() / 2**30:.1f} GiB are free"),
        ("network", f"about {_duration(forward)} at the speed of one trial pass"),
        *(("warning", warning) for warning in prepared.warnings),
    ]


@dataclass(frozen=True)
class Survey:
    """What a batch would do with one slide.

    Attributes
    ----------
    problem : str
        Why it would fail.
    """

    name: str
    tissue_mm2: float = 0.0
    tiles: int = 0
    problem: str = ""


def survey(batch: BatchJob, progress: Progress) -> Iterator[Survey]:
    """Yield what each slide of *batch* means in work; opens all of them, and runs none."""
    with PoolEngine() as engine:
        for entry in batch.entries():
            with Attempt() as attempt:
                job = batch.job(entry)
                prepared = prepare(job, progress, network_of(job, engine))
                yield Survey(entry.name, prepared.tissue_um2 * 1e-6, int(prepared.plan.selected.sum()))
            if attempt.error is not None:
                yield Survey(entry.name, problem=attempt.reason)


def forward_seconds(prepared: Prepared) -> float:
    """Return the seconds per tile of one forward pass, measured."""
    assert prepared.predictor is not None
    side = prepared.plan.tiles.side
    batch = np.zeros((prepared.predictor.batch, side, side, 3), np.uint8)
    start = time.perf_counter()
    prepared.predictor.maps(batch)
    return (time.perf_counter() - start) / len(batch)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
