"""Peak memory of `wsipipe segment` on a small and a large slide with the same tissue, and on an empty one.

    python -m tests.benchmarks.bench_memory [--tissue 10240]

The slides are 10,240 and 102,400 px wide, with 105 megapixels of tissue each: in one piece, and in four. Maps are
replayed after the network, which forwards one batch in 64 and so takes its memory. Each run is a process of its own;
what counts is its peak resident memory less what it held when the network had forwarded its first batch.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.pattern import PatternPredictor, write_pattern_slide
from wsipipe.raster.tiling import TILE
from wsipipe.schedule import pool
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores
from wsipipe.schedule.task import Board
from wsipipe.schedule.work import Worker
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.prepare import prepare
from wsipipe.segmentation.publish import Done, publish
from wsipipe.segmentation.request import network_of
from wsipipe.segmentation.run import open_work
from wsipipe.settings import RunSettings
from wsipipe.units import Box

TEN = 10


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def measured(slide: str, out: Path) -> dict[str, Any]:
    """Segment *slide* in this process, with replayed maps, and return its memory."""
    job = SegmentJob(slide, (out,), run=RunSettings(device="cpu"))
    engine = pool.PoolEngine()
    network = network_of(job, engine)
    assert network.predictor is not None
    network.predictor.maps(np.zeros((network.predictor.batch, TILE, TILE, 3), np.uint8))
    loaded, start, cpu = resident(), time.perf_counter(), time.process_time()
    prepared = prepare(job, Progress(), network)
    ready = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    worker = Worker(open_work(job.work, prepared).folder, PatternPredictor(network.predictor, every=64))
    receipts: list[Any] = []
    pool.run(worker, Board(prepared.plan), receipts.append, allowed_cores())
    result = publish(job, prepared, Done(receipts), Progress())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "loaded": loaded,
        "ready": ready,
        "peak": peak,
        "cells": result.cells,
        "wall": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
    }


def in_a_process(side: int, pieces: list[Box]) -> dict[str, Any]:
    """Draw a slide and return what segmenting it takes."""
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "slide.svs"
        write_pattern_slide(slide, side, pieces)
        command = [sys.executable, "-m", "tests.benchmarks.bench_memory", "--child", str(slide), f"{folder}/c.parquet"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        found: dict[str, Any] = json.loads(said)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tissue", type=int, default=10_240, help="side of the small slide, which is all tissue")
    parser.add_argument("--child", nargs=2)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measured(args.child[0], Path(args.child[1]))))
        return
    side, half = args.tissue, args.tissue // 2
    corners = [(a, b, a + half, b + half) for a in (side, 8 * side) for b in (side, 8 * side)]
    slides = {"small, all tissue": (side, [(0, 0, side, side)]), "large, sparse": (TEN * side, corners)}
    slides["large, empty"] = (TEN * side, [])
    peaks = {}
    for name, (width, pieces) in slides.items():
        said = in_a_process(width, pieces)
        peaks[name] = (said["peak"] - said["loaded"]) / 2**20
        ready = max(0.0, (said["ready"] - said["loaded"]) / 2**20)
        print(
            f"{name:18s} {width:6d} px: {said['cells']:7d} cells, {said['wall']:.1f} s ({said['cpu']:.1f} s of CPU), "
            f"{said['loaded'] / 2**20:.0f} MiB with the model, at most {peaks[name]:.0f} MiB more "
            f"({ready:.0f} to prepare)",
            flush=True,
        )
    print(f"large over small: {peaks['large, sparse'] / peaks['small, all tissue']:.3f}")


if __name__ == "__main__":
    main()
