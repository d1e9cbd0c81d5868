"""End-to-end time over the bare forward pass of the same tiles, in one process.

    python tests/benchmarks/bench_segment.py [SLIDE] [--model cmd-t]

Without SLIDE a phantom of 2048 x 2048 px at 0.5 um/px is drawn. The first, unmeasured, run compiles what is compiled.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np

from wsipipe.pipelines.prepare import prepare
from wsipipe.pipelines.segment import SegmentJob, run_segment
from wsipipe.schedule.progress import Progress
from wsipipe.settings import RunSettings
from wsipipe.slide.phantom import PhantomSettings, write_phantom
from wsipipe.tiling import TILE


def bare_forward(job: SegmentJob) -> tuple[float, int]:
    """Return the seconds of forwarding the job's tiles, each once, and their number."""
    prepared = prepare(job, Progress())
    assert prepared.predictor is not None
    count = int(prepared.plan.selected.sum())
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 255, (prepared.predictor.batch, TILE, TILE, 3), dtype=np.uint8)
    prepared.predictor.maps(tiles)
    start = time.perf_counter()
    for begin in range(0, count, len(tiles)):
        prepared.predictor.maps(tiles[: count - begin])
    return time.perf_counter() - start, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", nargs="?")
    parser.add_argument("--model", default="cmd-t")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slide = args.slide or f"{folder}/phantom.tiff"
        if not args.slide:
            write_phantom(slide, PhantomSettings(width=2048, height=2048, mpp=0.5, tissue=0.95))
        job = SegmentJob(slide, (Path(folder) / "cells.geojson",), model=args.model, run=RunSettings(device="auto"))
        run_segment(dataclasses.replace(job, bounds=(0, 0, 700, 700)), Progress())
        ratios = []
        for _ in range(3):
            forward, tiles = bare_forward(job)
            result = run_segment(dataclasses.replace(job, force=True), Progress())
            ratios.append(result.wall / forward)
            stages = ", ".join(f"{k} {v:.2f}" for k, v in result.seconds.items())
            print(f"{tiles} tiles: forward {forward:.1f} s, end to end {result.wall:.1f} s ({stages})")
            print(f"  {result.cells} cells, {result.tissue_mm2:.3f} mm2, {result.wall / result.tissue_mm2:.1f} s/mm2")
        print(f"end to end / bare forward: {np.median(ratios):.3f} (median of 3)")


if __name__ == "__main__":
    main()
