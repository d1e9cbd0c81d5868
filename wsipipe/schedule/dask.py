"""The executor for several processes: tasks as Dask futures, a bounded number in flight, receipts back.

Workers are told apart by Dask resources. One that was started with ``predict=1`` forwards tiles (it owns a device), one
with ``cells=1`` makes cells; where nobody is marked for a kind of task, everybody does it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import wsipipe
from wsipipe.errors import ClusterError, WsipipeError
from wsipipe.predict import Predictor, set_threads
from wsipipe.schedule.engine import Forward, Report
from wsipipe.schedule.local import local_cluster
from wsipipe.schedule.scratch import Scratch
from wsipipe.schedule.task import CELLS, PREDICT, Board, Receipt, Task
from wsipipe.schedule.work import loaded, worker_of
from wsipipe.settings import ClusterSettings, RunSettings

IN_FLIGHT = 2
"""Tasks per lane that are submitted at a time: one runs, one is at hand when it ends."""
RETRIES = 2
"""How often a task is repeated after an error of the operating system, such as a file server that is away."""
CONNECT_SECONDS = 30.0
"""How long a scheduler is looked for."""
REFRESH_SECONDS = 5.0
"""How often the workers are counted: they come and go."""


def do(folder: str, threads: int, task: tuple[str, int]) -> Receipt:
    """Do one task in a worker process."""
    use_threads(threads)
    return worker_of(folder).run(Task(*task))


def describe(threads: int, wanted: tuple[str, str, str, str, int]) -> tuple[str, Forward]:
    """Return the version of wsipipe in a worker process, and what its network is like."""
    use_threads(threads)
    return wsipipe.__version__, Forward.of(loaded(*wanted))


@lru_cache(maxsize=1)
def use_threads(threads: int) -> None:
    """Let this worker use so many CPU threads for the network; 0: as many as Dask was told that it has."""
    from distributed import get_worker

    set_threads(threads or max(1, get_worker().state.nthreads))


class Lanes(NamedTuple):
    """How many tasks of each kind run at a time, and whether they run on the same workers."""

    predict: int
    cells: int
    shared: bool

    def wanted(self, flying: Counter[str]) -> tuple[str, ...]:
        """Return which kinds of tasks may be submitted while those of *flying* are under way.

        Forwarding pauses when cells lag behind, so that few maps wait on disk.
        """
        if self.shared:
            return (CELLS, PREDICT) if flying.total() < IN_FLIGHT * self.cells else ()
        if flying[CELLS] >= IN_FLIGHT * self.cells:
            return ()
        return (CELLS, PREDICT) if flying[PREDICT] < IN_FLIGHT * self.predict else (CELLS,)


class DaskEngine:
    """Does tasks on Dask workers: those of a cluster of its own on this machine, or of one that is running.

    Parameters
    ----------
    run : RunSettings
    cluster : ClusterSettings
    say : callable
        Hears the link to the dashboard, and why nothing happens.
    """

    predictor: Predictor | None = None

    def __init__(self, run: RunSettings, cluster: ClusterSettings, say: Callable[[str], None]) -> None:
        self.settings, self.workers, self.say = cluster, run.workers, say
        self.local = not cluster.scheduler
        self._marked: set[str] = set()
        self._counted = -REFRESH_SECONDS
        self._lanes = Lanes(0, 0, True)
        self._threads = 0

    def __enter__(self) -> Self:
        from distributed import Client

        self._cluster: Any = None
        address = self.settings.scheduler
        if self.local:
            self._cluster, self._threads = local_cluster(self.workers, self.settings.devices)
            address = self._cluster
        try:
            self.client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"cannot reach a Dask scheduler at {address} ({error}); start one with `dask scheduler`, and workers "
                "with `dask worker`, or check the address"
            ) from error
        self.say(f"dashboard {self.client.dashboard_link}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close(timeout=2)
        if self._cluster is not None:
            self._cluster.close(timeout=10)

    # --- workers ---------------------------------------------------------------------------------------------------

    @property
    def lanes(self) -> tuple[int, int]:
        """Blocks predicted, and blocks whose cells are made, at a time."""
        lanes = self._count()
        return lanes.predict, lanes.cells

    def _count(self) -> Lanes:
        """Return the lanes of the workers that are there now."""
        if time.monotonic() - self._counted > REFRESH_SECONDS:
            self._counted = time.monotonic()
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
            self._marked |= {kind for kind in (PREDICT, CELLS) for w in workers if w["resources"].get(kind)}
            predict, cells = (
                int(sum(w["resources"].get(kind, 0) if kind in self._marked else w["nthreads"] for w in workers))
                for kind in (PREDICT, CELLS)
            )
            self._lanes = Lanes(predict, cells, not self._marked)
        return self._lanes

    def _submit(self, function: Callable[..., Any], *arguments: Any, kind: str) -> Any:
        resources = {kind: 1} if kind in self._marked else None
        return self.client.submit(function, *arguments, pure=False, resources=resources)

    def forward(self, model: str, sha256: str, run: RunSettings, batch: int) -> Forward:
        """Ask a worker; see :class:`~wsipipe.schedule.engine.Engine`."""
        if not self._count().predict:
            self.say(f"waiting for workers of {self.settings.scheduler or 'the local cluster'}")
            self.client.wait_for_workers(1)
            self._counted = -REFRESH_SECONDS
            self._count()
        from distributed import KilledWorker

        wanted = (model, sha256, run.device, run.precision, batch)
        future = self._submit(describe, self._threads, wanted, kind=PREDICT)
        try:
            version, forward = future.result()
        except (ModuleNotFoundError, CancelledError, KilledWorker) as error:
            raise _cluster_error(error) from error
        except RuntimeError as error:
            if "deserialization" not in str(error):
                raise
            raise ClusterError(
                f"the scheduler at {self.settings.scheduler} cannot read our tasks; install the same wsipipe and dask "
                "where scheduler and workers run"
            ) from error
        if version != wsipipe.__version__:
            raise ClusterError(f"the workers have wsipipe {version}, this is {wsipipe.__version__}; install the same")
        return forward  # type: ignore[no-any-return]

    # --- tasks -----------------------------------------------------------------------------------------------------

    def run(self, folder: Path, board: Board, report: Report) -> None:
        """Keep a bounded number of tasks in flight until *board* is done. A lost worker's tasks are repeated."""
        with self.client.as_current():
            self._run(Scratch(folder), os.path.abspath(folder), board, report)

    def _run(self, scratch: Scratch, where: str, board: Board, report: Report) -> None:
        flying: dict[Any, Task] = {}
        tries: Counter[Task] = Counter()
        try:
            while not board.done:
                while kinds := self._count().wanted(Counter(task.kind for task in flying.values())):
                    if (task := board.take(*kinds)) is None:
                        break
                    flying[self._submit(do, where, self._threads, tuple(task), kind=task.kind)] = task
                for future in _landed(list(flying)):
                    task = flying.pop(future)
                    error = None if future.status == "finished" else future.exception()
                    if error is None:
                        receipt: Receipt = future.result()
                        scratch.drop(board.finish(receipt.task))
                        report(receipt)
                    elif _passing(error) and tries[task] < RETRIES:
                        tries[task] += 1
                        flying[self._submit(do, where, self._threads, tuple(task), kind=task.kind)] = task
                    else:
                        raise _cluster_error(error, task) from error
        except CancelledError as error:
            raise _cluster_error(error) from error
        except Exception:
            _landed(list(flying), "ALL_COMPLETED", None)  # nothing may write behind the back of what comes next
            raise


def _landed(futures: Sequence[Any], when: str = "FIRST_COMPLETED", timeout: float | None = REFRESH_SECONDS) -> Any:
    """Return the *futures* that are done; waits for one (or all), and no longer than *timeout* seconds."""
    from distributed import TimeoutError, wait

    if not futures:
        time.sleep(0.2)
        return ()
    try:
        return wait(futures, timeout=timeout, return_when=when).done
    except TimeoutError:
        return ()


def _passing(error: BaseException) -> bool:
    """Whether *error* may be gone the next time."""
    return isinstance(error, OSError) and not isinstance(error, WsipipeError)


def _cluster_error(error: BaseException, task: Task | None = None) -> BaseException:
    """Return the error to raise for *error* of a task: in our words where the cluster is to blame."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        where = f"block {task.block}" if task else "loading the model"
        return ClusterError(
            f"workers died again and again at {where}, most likely for lack of memory; give a smaller --block, "
            "or fewer --workers"
        )
    if isinstance(error, CancelledError):
        return ClusterError("the scheduler is gone, or was restarted; the same command resumes what is done")
    if isinstance(error, ModuleNotFoundError):
        return ClusterError(f"a worker has no module {error.name}; install wsipipe where the workers run")
    return error
