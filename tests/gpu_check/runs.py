"""Whole runs: end to end with several readers, beside the bare forward pass; lack of memory; resume; several GPUs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.pattern import write_pattern_slide
from tests.gpu_check.context import Context
from wsipipe.infer.predict import Predictor, load_predictor
from wsipipe.models.device import SmallerBatch, free_memory
from wsipipe.raster.tiling import TILE
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import ClusterSettings, RunSettings, TissueSettings

Row = dict[str, Any]


@cache
def slide_of(context: Context) -> Path:
    """Return a slide that is all tissue, at 0.5 µm/px."""
    path, side = context.folder / "slide.svs", context.sizes.side
    write_pattern_slide(path, side, [(0, 0, side, side)])
    return path


def job_of(context: Context, name: str, **run: Any) -> SegmentJob:
    """Return the job of segmenting the slide with the first network."""
    settings = RunSettings(device=str(context.device), block=min(3072, context.sizes.side // 2), **run)
    return SegmentJob(
        str(slide_of(context)), (context.folder / f"{name}.parquet",), str(context.whole), run=settings,
        tissue=TissueSettings(tissue="none"),
    )  # fmt: skip


class Tiles(Progress):
    """Counts the tiles that are forwarded; calls *stop* after so many."""

    def __init__(self, most: int = 10**9) -> None:
        self.done, self.most = 0, most

    def advance(self, stage: str, steps: int = 1) -> None:
        if stage == "tiles":
            self.done += steps
            if self.done >= self.most:
                raise KeyboardInterrupt


def end_to_end(context: Context) -> Iterator[Row]:
    """Yield tiles per second of whole runs with 1, 2, 4, ... readers, and what each stage took."""
    bare, first = _bare_rate(context), None
    free_memory(context.device)
    run_segment(job_of(context, "warm"), Progress())  # compiles what is compiled
    for readers in (n for n in context.sizes.readers if n <= max(1, allowed_cores())):
        if context.left < 20 and first:
            yield {"readers": readers, "note": "no time left"}
            continue
        context.peak()
        job, counted, start = job_of(context, f"r{readers}", readers=readers), Tiles(), time.perf_counter()
        result = run_segment(job, counted)
        took, content = time.perf_counter() - start, job.outputs[0].read_bytes()
        first = first or content
        yield {
            "readers": readers,
            "tiles": counted.done,
            "tiles/s": round(counted.done / took, 1),
            "of the bare rate": round(counted.done / took / bare, 3),
            "s/mm2": round(took / result.tissue_mm2, 3),
            "cells": result.cells,
            "cells found": result.cells > 0,
            "same bytes": content == first,
            "slowest stage": result.bottleneck,
            "seconds by stage": {stage: round(seconds, 1) for stage, seconds in result.load.items()},
            "peak MiB": context.peak(),
        }


def _bare_rate(context: Context) -> float:
    """Return tiles per second of the forward pass alone, from host memory and back."""
    predictor = load_predictor(context.whole, str(context.device), "auto", 0)
    tiles = np.random.default_rng(0).integers(0, 256, (4 * predictor.batch, TILE, TILE, 3), np.uint8)
    return len(tiles) / context.seconds_of(lambda: predictor.maps(tiles), 1)


def lack_of_memory(context: Context) -> Iterator[Row]:
    """Yield what happens when a batch is far too large for the GPU: a real error, half the batch, and so on."""
    name = list(context.sizes.networks)[-1]
    if not context.on_gpu:
        yield {"note": "there is no memory of a GPU to run out of"}
        return
    free_memory(context.device)
    total = torch.cuda.get_device_properties(context.device).total_memory
    leave = torch.cuda.memory_reserved(context.device) + (3 << 30)
    torch.cuda.set_per_process_memory_fraction(min(1.0, leave / total), context.device)
    try:
        context.peak()
        batch = 512
        try:
            Predictor(context.model(name), str(context.device), "auto", batch).probe()
            found = "no error"
        except SmallerBatch as error:
            held = torch.cuda.memory_allocated(context.device) >> 20
            found = f"{error}; {held} MiB still held"
        free_memory(context.device)
        predictor = load_predictor(context.model(name), str(context.device), "auto", batch)
        yield {"network": name, "asked": batch, "fits": predictor.batch, "first error": found, "GPU memory": "3 GiB"}
        job = replace(job_of(context, "oom", batch=batch), force=True)
        result = run_segment(job, Progress())
        yield {"network": "the slide", "asked": batch, "cells": result.cells}
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, context.device)


def resume(context: Context) -> Iterator[Row]:
    """Yield whether a run that is interrupted goes on, and gives the bytes of one that is not."""
    whole, broken = job_of(context, "whole"), job_of(context, "broken")
    all_tiles = Tiles()
    run_segment(whole, all_tiles)
    first, rest = Tiles(most=all_tiles.done - 1), Tiles()  # within the last block
    with contextlib.suppress(KeyboardInterrupt):
        run_segment(broken, first)
    run_segment(broken, rest)
    same = whole.outputs[0].read_bytes() == broken.outputs[0].read_bytes()
    yield {"tiles": all_tiles.done, "before": first.done, "after": rest.done, "same bytes": same}


def several_gpus(context: Context) -> Iterator[Row]:
    """Yield tiles per second on all GPUs, a forwarding process on each, beside one of them."""
    count = torch.cuda.device_count() if context.on_gpu else 0
    if count < 2:
        yield {"note": f"{count} GPUs here: nothing to compare"}
        return
    for used in (1, count):
        names = ",".join(f"cuda:{i}" for i in range(used))
        job = replace(job_of(context, f"gpus{used}"), cluster=ClusterSettings(devices=names))
        counted, start = Tiles(), time.perf_counter()
        run_segment(job, counted)
        took = time.perf_counter() - start
        yield {"devices": names, "tiles/s with start-up": round(counted.done / took, 1)}
