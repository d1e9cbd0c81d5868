"""Cost of scheduling: a thousand slides through the real scheduler and its workers, with tasks that do nothing.

    python -m tests.benchmarks.bench_scheduler [--slides 1000] [--blocks 3] [--workers 2]

Plans, boards, back-pressure, Dask's scheduler and its workers are those of a run; only the work itself is left out.
Printed: CPU of the process that schedules per block of a slide, that is per two tasks, less what it takes when nothing
happens (Dask keeps house all the time); the same for Dask alone, given as many tasks that do nothing; and the memory of
that process as slides go by.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from wsipipe.geometry import Grid
from wsipipe.instances import CellRules
from wsipipe.schedule import dask
from wsipipe.schedule.task import PREDICT, Board, Plan, Receipt, Task
from wsipipe.settings import ClusterSettings, GridSettings, RunSettings, SlideSettings
from wsipipe.tiling import TileGrid

BLOCK = 3072


def nothing(folder: str, threads: int, task: tuple[str, int]) -> Receipt:
    """Stand in for :func:`wsipipe.schedule.dask.do`."""
    return Receipt(Task(*task), 256, {"decode": 1.0, "network": 10.0, "scratch": 0.1, "blend": 0.1, "cells": 0.5})


def plan_of(blocks: int, slide: int) -> Plan:
    """Return the plan of a slide that is *blocks* x *blocks* blocks of tissue."""
    side = blocks * BLOCK
    grid = Grid((side, side), (1.0, 1.0), (0.5, 0.5), 0, (1.0, 1.0))
    nx, ny = TileGrid(grid.size, 64).counts
    rules = CellRules(0.5, 0.5, 30.0, 8, 64)
    names, everything = ("foreground", "marker"), np.ones((ny, nx), bool)
    parts = SlideSettings(), GridSettings(), RunSettings(block=BLOCK), "cmd-t", grid, rules, names, (), 0.0, None
    return Plan(f"slide{slide}.svs", *parts, "f" * 64, "f" * 64, everything)


def housekeeping(seconds: float = 4.0) -> float:
    """Return the share of a core that scheduler and client take while nothing happens."""
    cpu, wall = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


def dask_alone(client: Any, tasks: int, idle: float) -> float:
    """Return the seconds of CPU per task of submitting tasks, four at a time, and taking their results."""
    from distributed import as_completed

    cpu, wall = time.process_time(), time.perf_counter()
    first = [client.submit(nothing, "", 1, (PREDICT, k), pure=False) for k in range(4)]
    flying = as_completed(first, loop=client.loop)
    for sent, future in enumerate(flying, 5):
        future.result()
        if sent <= tasks:
            flying.add(client.submit(nothing, "", 1, (PREDICT, sent), pure=False))
    return (time.process_time() - cpu - idle * (time.perf_counter() - wall)) / tasks


def memory() -> float:
    """Return the MiB that this process, which holds scheduler and client, has."""
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=3, help="blocks along a side of a slide")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    dask.do = nothing
    receipt = len(json.dumps(nothing("", 1, ("predict", 0)).seconds))
    plan, per_slide = plan_of(args.blocks, 0), args.blocks**2
    receipts: list[Any] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.DaskEngine(RunSettings(workers=args.workers), ClusterSettings(), print) as engine,
    ):
        engine.client.wait_for_workers(args.workers)
        dask_alone(engine.client, 50, 0.0)
        idle = housekeeping()
        bare = dask_alone(engine.client, 300, idle)
        marks = sorted({max(1, args.slides * share // 100) for share in (2, 10, 25, 50, 75, 100)})
        held: dict[int, float] = {}
        boards, start, cpu = 0.0, time.perf_counter(), time.process_time()
        for slide in range(1, args.slides + 1):
            began = time.process_time()
            board = Board(plan)
            boards += time.process_time() - began
            receipts.clear()
            engine.run(Path(folder), board, receipts.append)
            assert len(receipts) == 2 * per_slide
            if slide in marks:
                held[slide] = memory()
                print(f"{slide:6d} slides: scheduler and client hold {held[slide]:.0f} MiB", flush=True)
        blocks = args.slides * per_slide
        wall, spent = time.perf_counter() - start, time.process_time() - cpu
    print(f"{args.slides} slides of {per_slide} blocks, {args.workers} workers, receipts of about {receipt} bytes")
    ours = (spent - idle * wall) / blocks
    print(f"per block (two tasks): {1e3 * ours:.2f} ms of CPU to schedule, of that {1e3 * boards / blocks:.2f} ms for "
          f"the board; {ours / (2 * bare):.2f}x Dask alone ({2e3 * bare:.2f} ms)")  # fmt: skip
    print(f"Dask's housekeeping: {100 * idle:.1f} % of a core; {1e3 * wall / blocks:.0f} ms of wall time per block")
    first, *_, last = held.values()
    print(f"memory after the last slide over that after {marks[0]}: {last / first:.3f}")


if __name__ == "__main__":
    main()
