"""The executor for several processes: tasks as Dask futures, a bounded number in flight, receipts back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsipipe.schedule.resources import allowed_cores
from wsipipe.schedule.scratch import Scratch
from wsipipe.schedule.task import Board, Receipt, Task
from wsipipe.schedule.work import worker_of

IN_FLIGHT = 2
"""Tasks per worker that are submitted at a time."""


def do(folder: str, fingerprint: str, threads: int, task: tuple[str, int]) -> Receipt:
    """Do one task in a worker process."""
    return worker_of(folder, fingerprint, threads).run(Task(*task))


def run(
    folder: Path,
    fingerprint: str,
    board: Board,
    workers: int,
    report: Callable[[Receipt], None],
    announce: Callable[[str], None] = lambda link: None,
) -> None:
    """Do all tasks of *board* in *workers* local processes.

    A worker that dies loses nothing but its task, which another one repeats.
    """
    from distributed import Client, LocalCluster

    threads = max(1, allowed_cores() // workers)
    cluster = LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
    )
    with cluster, Client(cluster) as client:
        announce(client.dashboard_link)
        _drive(client, folder, fingerprint, threads, board, IN_FLIGHT * workers, report)


def _drive(
    client: Any,
    folder: Path,
    fingerprint: str,
    threads: int,
    board: Board,
    limit: int,
    report: Callable[[Receipt], None],
) -> None:
    """Keep up to *limit* tasks in flight until the board is done."""
    from distributed import wait

    scratch = Scratch(folder)
    flying: set[Any] = set()
    while not board.done:
        while len(flying) < limit and (task := board.take()) is not None:
            flying.add(client.submit(do, str(folder), fingerprint, threads, tuple(task), pure=False, retries=2))
        landed = wait(flying, return_when="FIRST_COMPLETED").done
        for future in landed:
            receipt: Receipt = future.result()
            scratch.drop(board.finish(receipt.task))
            report(receipt)
        flying -= landed
