"""The executor for one process: tiles are forwarded here while cells are extracted in threads beside it."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from wsipipe.models.threads import set_threads
from wsipipe.plugins.opening import AnyPredictor, open_predictor
from wsipipe.schedule.engine import Forward, Report
from wsipipe.schedule.progress import SoFar
from wsipipe.schedule.resources import allowed_cores, network_threads
from wsipipe.schedule.task import PREDICT, Board, Plan, Receipt
from wsipipe.schedule.threads import Threads
from wsipipe.schedule.work import Worker
from wsipipe.settings import RunSettings

BACKLOG = 2
"""Cells tasks per thread that may wait before forwarding pauses, so that memory stays bounded."""
KEPT_NETWORKS = 2
"""Networks in memory at a time."""


class PoolEngine:
    """Does all tasks in this process; keeps the networks that it loaded last."""

    local = True

    def __init__(self) -> None:
        set_threads(network_threads())
        self._loading = threading.Lock()
        self._loaded: OrderedDict[tuple[str, str, str, int, str], AnyPredictor] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loaded.clear()

    @property
    def lanes(self) -> tuple[int, int]:
        """One block is predicted while the cells of others are made in threads."""
        return 1, allowed_cores()

    @property
    def predictor(self) -> AnyPredictor | None:
        """The network that was asked for last."""
        return next(reversed(self._loaded.values()), None)

    def forward(self, model: str, sha256: str, run: RunSettings, batch: int) -> Forward:
        """Load the network, unless it is loaded; see :class:`~wsipipe.schedule.engine.Engine`."""
        return Forward.of(self._load(model, sha256, run, batch))

    def _load(self, model: str, sha256: str, run: RunSettings, batch: int) -> AnyPredictor:
        key = sha256, run.device, run.precision, batch, run.engine
        with self._loading:  # the next slide is prepared in another thread
            if key not in self._loaded:
                while len(self._loaded) >= KEPT_NETWORKS:
                    self._loaded.popitem(last=False)
                self._loaded[key] = open_predictor(model, run.device, run.precision, batch, run.engine)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def run(self, folder: Path, board: Board, report: Report, so_far: SoFar) -> None:
        """Do all tasks of *board*."""
        plan = Plan.load(folder)
        predictor = self._load(plan.model, plan.model_sha256, plan.run, plan.run.batch)
        gc.freeze()  # what is loaded by now need not be searched for garbage with every few thousand polygons
        try:
            with Worker(folder, predictor, so_far) as worker:
                run(worker, board, report, allowed_cores(), plan.recipe.get("device", "cpu") != "cpu")
        finally:
            gc.unfreeze()


def run(
    worker: Worker, board: Board, report: Callable[[Receipt], None], threads: int, write_aside: bool = False
) -> None:
    """Do all tasks of *board*: predict in this thread, cells in *threads* others (their work releases the GIL).

    Parameters
    ----------
    write_aside : bool
        Write the maps of a block while the next is forwarded, and hold both in memory: a GPU does not wait then. On a
        CPU writing takes less than a hundredth of forwarding.
    """
    flying: set[Future[Receipt]] = set()
    written: Future[Receipt] | None = None

    def land(futures: set[Future[Receipt]]) -> None:
        for future in futures:
            receipt = future.result()
            worker.scratch.drop(board.finish(receipt.task))
            report(receipt)
            flying.discard(future)

    with Threads(threads) as pool, Threads(1) as writer, Threads(worker.readers) as ahead:
        while not board.done:
            task = board.take()
            if task is None or len(flying) > BACKLOG * threads:
                land(wait(flying, return_when=FIRST_COMPLETED).done)
            if task is not None and task.kind != PREDICT:
                flying.add(pool.submit(worker.run, task))
            elif task is not None:
                write = worker.begin(task, ahead, board.upcoming)
                if written is not None:
                    wait([written])  # no more than one block waits to be written
                written = writer.submit(write)
                flying.add(written)
                if not write_aside:
                    land({written})
            land({future for future in flying if future.done()})
