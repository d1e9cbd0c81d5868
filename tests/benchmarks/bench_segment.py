"""End-to-end time over the bare forward pass of the same tiles, in one process.

    python -m tests.benchmarks.bench_segment [SLIDE] [--side 1536] [--repeats 3] [--model cmd-t]

Without SLIDE a phantom of --side px at 0.5 µm/px is drawn. The first, unmeasured, run compiles what is compiled.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.work import Worker
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.prepare import prepare
from wsipipe.segmentation.run import open_work, run_segment
from wsipipe.settings import RunSettings


def bare_forward(job: SegmentJob) -> tuple[float, int]:
    """Return the seconds of forwarding the job's tiles, each once and all read before, and their number."""
    prepared = prepare(job, Progress())
    assert prepared.predictor is not None
    worker = Worker(open_work(job.work, prepared).folder, prepared.predictor)
    wanted = [(int(i), int(j)) for j, i in zip(*np.nonzero(prepared.plan.selected), strict=True)]
    tiles = np.stack([worker.raster.read(prepared.plan.tiles.box(i, j)) for i, j in wanted])
    shutil.rmtree(job.work)
    prepared.predictor.maps(tiles[: prepared.predictor.batch])
    start = time.perf_counter()
    prepared.predictor.maps(tiles)
    return time.perf_counter() - start, len(tiles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", nargs="?")
    parser.add_argument("--side", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="cmd-t")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slide = args.slide or f"{folder}/phantom.tiff"
        if not args.slide:
            write_phantom(slide, PhantomSettings(width=args.side, height=args.side, mpp=0.5, tissue=0.95))
        job = SegmentJob(slide, (Path(folder) / "cells.geojson",), model=args.model, run=RunSettings(device="auto"))
        run_segment(dataclasses.replace(job, bounds=(0, 0, 700, 700)), Progress())
        ratios = []
        for _ in range(args.repeats):
            forward, tiles = bare_forward(job)
            result = run_segment(dataclasses.replace(job, force=True), Progress())
            ratios.append(result.wall / forward)
            stages = ", ".join(f"{k} {v:.2f}" for k, v in result.seconds.items())
            print(f"{tiles} tiles: forward {forward:.1f} s, end to end {result.wall:.1f} s ({stages})")
            print(f"  {result.cells} cells, {result.tissue_mm2:.3f} mm², {result.wall / result.tissue_mm2:.1f} s/mm²")
        print(f"end to end / bare forward: {np.median(ratios):.3f} (median of {args.repeats})")


if __name__ == "__main__":
    main()
