"""Cost of scheduling: slides through the real scheduler and its workers, with tasks that do nothing.

    python -m tests.benchmarks.bench_scheduler [--slides 1000] [--workers 2]

Plans, boards, back-pressure, Dask's scheduler and its workers are those of a run; only the work itself is left out.
Printed: CPU of the process that schedules per block of a slide, that is per two tasks, less what it takes when nothing
happens (Dask keeps house all the time), for slides of 1, 9 and 81 blocks, then for 81 with one block to an order, which
is how blocks of more than a second go; the same for Dask alone, given as many tasks that do nothing; and the memory of
that process while --slides of 9 blocks go by.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from wsipipe.cells.instances import CellRules
from wsipipe.geometry import Grid
from wsipipe.raster.tiling import TileGrid
from wsipipe.schedule import dask, order
from wsipipe.schedule.task import PREDICT, Board, Plan, Receipt, Task
from wsipipe.settings import ClusterSettings, GridSettings, RunSettings, SlideSettings

BLOCK = 3072


def nothing(kind: str, blocks: tuple[int, ...], folder: str, threads: int) -> list[Receipt]:
    """Stand in for :func:`wsipipe.schedule.process.do`."""
    stages = {"decode": 1e-6, "network": 1e-6, "scratch": 1e-6, "blend": 1e-6, "cells": 1e-6}
    return [Receipt(Task(kind, block), 256, stages) for block in blocks]


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
    first = [client.submit(nothing, PREDICT, (k,), "", 1, pure=False) for k in range(4)]
    flying = as_completed(first, loop=client.loop)
    for sent, future in enumerate(flying, 5):
        future.result()
        if sent <= tasks:
            flying.add(client.submit(nothing, PREDICT, (sent,), "", 1, pure=False))
    return (time.process_time() - cpu - idle * (time.perf_counter() - wall)) / tasks


def memory() -> float:
    """Return the MiB that this process, which holds scheduler and client, has."""
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20


class Slides:
    """Sends slides through an engine, and tells the CPU that it took."""

    def __init__(self, engine: dask.DaskEngine, folder: Path, idle: float) -> None:
        self.engine, self.folder, self.idle = engine, folder, idle

    def send(self, side: int, slides: int) -> tuple[float, float, float]:
        """Send slides of side x side blocks; return seconds per block: CPU, of that for the board, and wall time."""
        plan, boards = plan_of(side, 0), 0.0
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(slides):
            began, receipts = time.process_time(), []  # type: ignore[var-annotated]
            board = Board(plan)
            boards += time.process_time() - began
            self.engine.run(self.folder, board, receipts.append, lambda block, tiles: None)
            assert len(receipts) == 2 * side**2
        wall, blocks = time.perf_counter() - wall, slides * side**2
        spent = time.process_time() - cpu - self.idle * wall
        return spent / blocks, boards / blocks, wall / blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    dask.do = nothing
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.DaskEngine(RunSettings(workers=args.workers), ClusterSettings(), print) as engine,
    ):
        engine.client.wait_for_workers(args.workers)
        dask_alone(engine.client, 50, 0.0)
        idle = housekeeping()
        slides = Slides(engine, Path(folder), idle)
        bare = dask_alone(engine.client, 200, idle)
        print(f"Dask alone: {2e3 * bare:.2f} ms of CPU for two tasks; its housekeeping {100 * idle:.1f} % of a core")
        for side, count, most in ((1, 30, 32), (3, 20, 32), (9, 4, 32), (9, 1, 1)):
            order.MOST_BLOCKS, order.ORDER_SECONDS = most, 1.0 if most > 1 else 0.0
            ours, boards, wall = slides.send(side, count)
            what = "as shipped" if most > 1 else "one block to an order"
            print(f"slides of {side**2} blocks, {what}: {1e3 * ours:.2f} ms of CPU per block, "
                  f"of that {1e3 * boards:.2f} for the board; {ours / (2 * bare):.2f}x Dask alone; "
                  f"{1e3 * wall:.0f} ms of wall time")  # fmt: skip
        order.MOST_BLOCKS, order.ORDER_SECONDS = 32, 1.0
        held, sent = [], 0
        for upto in sorted({max(1, args.slides * share // 100) for share in (2, 10, 25, 50, 75, 100)}):
            slides.send(3, upto - sent)
            sent = upto
            held.append(memory())
            print(f"{upto:6d} slides: scheduler and client hold {held[-1]:.0f} MiB", flush=True)
        print(f"memory at the end over that after 2 %: {held[-1] / held[0]:.3f}")


if __name__ == "__main__":
    main()
