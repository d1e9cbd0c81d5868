"""What a worker process does when Dask asks it to; the other side is :mod:`wsipipe.schedule.dask`."""

from __future__ import annotations

import socket
import time
from functools import lru_cache
from pathlib import Path

from wsipipe._version import __version__
from wsipipe.errors import ClusterError
from wsipipe.models.threads import set_threads
from wsipipe.schedule.engine import Forward
from wsipipe.schedule.network import loaded
from wsipipe.schedule.progress import SoFar
from wsipipe.schedule.task import Receipt, Task
from wsipipe.schedule.work import Worker

TELL_SECONDS = 1.0
"""How often a worker tells how far it is within a block."""


def do(kind: str, blocks: tuple[int, ...], folder: str, threads: int) -> list[Receipt]:
    """Do an order in a worker process; the file of each block is there, whole, as soon as it is done."""
    use_threads(threads)
    worker = worker_of(folder)
    worker.so_far = worker.so_far or _teller(folder)
    return [worker.run(Task(kind, block)) for block in blocks]


def topic(folder: str) -> str:
    """Return the name under which the workers of the run in *folder* tell how far they are."""
    return f"wsipipe tiles {folder}"


def _teller(folder: str) -> SoFar:
    """Return what tells the main process, now and then, how many tiles of a block were forwarded in this one."""
    from distributed import get_worker

    me, told = get_worker(), time.monotonic()

    def tell(block: int, tiles: int) -> None:
        nonlocal told
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            me.log_event(topic(folder), (block, tiles))

    return tell


def describe(threads: int, wanted: tuple[str, str, str, str, int, str]) -> tuple[str, Forward]:
    """Return the version of wsipipe in a worker process, and what its network is like."""
    use_threads(threads)
    return __version__, Forward.of(loaded(*wanted))


@lru_cache(maxsize=1)
def use_threads(threads: int) -> None:
    """Let this worker use so many CPU threads for the network; 0: as many as Dask was told that it has."""
    from distributed import get_worker

    set_threads(threads or max(1, get_worker().state.nthreads))


@lru_cache(maxsize=2)
def worker_of(folder: str) -> Worker:
    """Return this process's worker for a run; the slide is opened once.

    Raises
    ------
    ClusterError
        When this process does not see the folder of the run.
    """
    try:
        return Worker(Path(folder))
    except FileNotFoundError as error:
        raise ClusterError(
            f"a worker on {socket.gethostname()} does not see {error.filename}; slides, models and the output folder "
            "must be under the same path on all machines"
        ) from error
