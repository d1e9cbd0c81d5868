"""The executor for one process: tiles are forwarded here while cells are extracted in threads beside it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from wsipipe.schedule.task import PREDICT, Board, Receipt
from wsipipe.schedule.work import Worker

BACKLOG = 2
"""Cells tasks per thread that may wait before forwarding pauses, so that memory stays bounded."""


def run(worker: Worker, board: Board, report: Callable[[Receipt], None], threads: int) -> None:
    """Do all tasks of *board*: predict in this thread, cells in *threads* others (their work releases the GIL)."""
    flying: set[Future[Receipt]] = set()

    def land(futures: set[Future[Receipt]]) -> None:
        for future in futures:
            receipt = future.result()
            worker.scratch.drop(board.finish(receipt.task))
            report(receipt)
            flying.discard(future)

    with ThreadPoolExecutor(threads) as pool:
        while not board.done:
            task = board.take()
            if task is None or len(flying) > BACKLOG * threads:
                land(wait(flying, return_when=FIRST_COMPLETED).done)
            if task is not None and task.kind != PREDICT:
                flying.add(pool.submit(worker.run, task))
            elif task is not None:
                receipt = worker.run(task)
                board.finish(task)
                report(receipt)
            land({future for future in flying if future.done()})
