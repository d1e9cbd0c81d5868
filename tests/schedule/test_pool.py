"""One process: what is done beside the network, and that the cells are the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.pattern import PatternPredictor, write_pattern_slide
from wsipipe.schedule import pool, serial, work
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.scratch import Scratch
from wsipipe.schedule.task import Board
from wsipipe.schedule.work import Worker
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.prepare import Prepared, prepare
from wsipipe.segmentation.run import open_work
from wsipipe.settings import RunSettings, TissueSettings

PATIENCE = 60
"""Seconds after which something is said never to happen."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Return a slide of four blocks, all tissue."""
    slide = tmp_path_factory.mktemp("pool") / "slide.svs"
    write_pattern_slide(slide, 600, [(0, 0, 600, 600)])
    run = RunSettings(device="cpu", precision="fp32", block=512)
    tissue = TissueSettings(tissue="none")
    return prepare(SegmentJob(str(slide), (slide.with_suffix(".parquet"),), tissue=tissue, run=run), Progress())


class Network(PatternPredictor):
    """Calls back with its number before each batch."""

    def __init__(self, network: Any, before: Callable[[int], None]) -> None:
        super().__init__(network)
        self.before, self.count, self.batch = before, 0, 3

    def begin(self, tiles: Any) -> Callable[[], Any]:
        self.before(self.count)
        self.count += 1
        return super().begin(tiles)


def nothing(count: int) -> None:
    """Do so."""


@pytest.fixture
def worker_of(prepared: Prepared, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Return what makes a worker in a folder of its own."""
    made = []

    def make(name: str, before: Callable[[int], None] = nothing) -> Worker:
        made.append(Worker(open_work(tmp_path / name, prepared).folder, Network(prepared.predictor, before)))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.mark.parametrize("write_aside", [False, True])
def test_parts_are_those_of_one_task_after_the_other(
    prepared: Prepared, worker_of: Callable[..., Worker], write_aside: bool
) -> None:
    def parts(scratch: Scratch) -> list[bytes]:
        return [scratch.part(block).read_bytes() for block in range(len(prepared.plan.blocks))]

    plain, beside = worker_of("plain"), worker_of("beside")
    serial.run(plain, Board(prepared.plan), lambda receipt: None)
    receipts: list[Any] = []
    pool.run(beside, Board(prepared.plan), receipts.append, 2, write_aside)
    assert parts(beside.scratch) == parts(plain.scratch) and len(receipts) == 8
    assert sum(r.count for r in receipts if r.task.kind == "predict") == int(prepared.plan.selected.sum()) == 9
    assert list(beside.scratch.maps_folder.iterdir()) == []


def test_the_next_block_is_read_before_this_one_is_forwarded(
    prepared: Prepared, worker_of: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (set(prepared.plan.tiles_of(block)) for block in (0, 1))
    reading = threading.Event()
    read = Worker._read

    def noted(self: Worker, k: int, batch: list[tuple[int, int]]) -> Any:
        if second.intersection(batch):
            reading.set()
        return read(self, k, batch)

    seen = []
    last = -(-len(first) // 3) - 1
    monkeypatch.setattr(Worker, "_read", noted)
    worker = worker_of("one", lambda count: seen.append(reading.wait(PATIENCE)) if count == last else None)
    pool.run(worker, Board(prepared.plan), lambda receipt: None, 1)
    assert seen == [True]


def test_maps_are_written_while_the_next_block_is_forwarded(
    prepared: Prepared, worker_of: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = -(-len(prepared.plan.tiles_of(0)) // 3) - 1
    forwarding = threading.Event()
    write, waited = work.write_maps, []

    def late(*args: Any) -> None:
        waited.append(forwarding.wait(PATIENCE))
        write(*args)

    monkeypatch.setattr(work, "write_maps", late)
    worker = worker_of("one", lambda count: forwarding.set() if count > last else None)
    pool.run(worker, Board(prepared.plan), lambda receipt: None, 1, write_aside=True)
    assert np.all(waited) and len(waited) == 4
