"""Peak memory of `wsipipe segment` on a small and a large phantom with 5 % tissue.

    python tests/benchmarks/bench_memory.py [--sides 10000 60000] [--tissue 0.05]

Each run is a process of its own; what counts is its peak resident memory less what it held once the model was loaded.
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

from wsipipe.settings import PhantomSettings


def measured(slide: str, out: str, model: str) -> None:
    """Segment *slide* in this process and print its memory as JSON."""
    import psutil

    from wsipipe.models.zoo import resolve
    from wsipipe.pipelines.segment import SegmentJob, run_segment
    from wsipipe.predict import load_predictor
    from wsipipe.schedule.progress import Progress

    load_predictor(resolve(model), "cpu", "auto", 0)
    loaded = psutil.Process().memory_info().rss
    start = time.perf_counter()
    result = run_segment(SegmentJob(slide, (Path(out),), model=model), Progress())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"loaded": loaded, "peak": peak, "cells": result.cells, "seconds": time.perf_counter() - start}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[10_000, 60_000])
    parser.add_argument("--tissue", type=float, default=0.05)
    parser.add_argument("--model", default="cmd-t")
    parser.add_argument("--child", nargs=2)
    args = parser.parse_args()
    if args.child:
        measured(*args.child, args.model)
        return
    from wsipipe.slide.phantom import write_phantom

    peaks = []
    for side in args.sides:
        with tempfile.TemporaryDirectory() as folder:
            slide = f"{folder}/phantom.tiff"
            start = time.perf_counter()
            write_phantom(slide, PhantomSettings(width=side, height=side, tissue=args.tissue, seed=1))
            drawn = time.perf_counter() - start
            command = [sys.executable, __file__, "--model", args.model, "--child", slide, f"{folder}/cells.parquet"]
            said = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
            peaks.append((said["peak"] - said["loaded"]) / 2**20)
            print(
                f"{side} x {side} px (drawn in {drawn:.0f} s): {said['cells']} cells in {said['seconds']:.0f} s, "
                f"peak {said['peak'] / 2**20:.0f} MiB, {peaks[-1]:.0f} MiB besides the model",
                flush=True,
            )
    print(f"largest over smallest: {peaks[-1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
