"""The executor that is the specification: one task after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable

from wsipipe.schedule.task import Board, Receipt
from wsipipe.schedule.work import Worker


def run(worker: Worker, board: Board, report: Callable[[Receipt], None]) -> None:
    """Do all tasks of *board*; scratch files go as soon as nobody needs them."""
    while (task := board.take()) is not None:
        receipt = worker.run(task)
        worker.scratch.drop(board.finish(task))
        report(receipt)
