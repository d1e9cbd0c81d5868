"""The executor for several processes: tasks as Dask futures, a bounded number in flight, receipts back.

Workers are told apart by Dask resources. One that was started with ``predict=1`` forwards tiles (it owns a device), one
with ``cells=1`` makes cells; where nobody is marked for a kind of task, everybody does it.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wsipipe._version import __version__
from wsipipe.errors import ClusterError, WsipipeError
from wsipipe.plugins.opening import AnyPredictor
from wsipipe.schedule.engine import Forward, Report
from wsipipe.schedule.local import local_cluster
from wsipipe.schedule.order import Lanes, Order, Pace
from wsipipe.schedule.process import describe, do, topic
from wsipipe.schedule.progress import SoFar
from wsipipe.schedule.scratch import Scratch
from wsipipe.schedule.task import CELLS, PREDICT, Board
from wsipipe.schedule.watch import PATIENCE, Watch
from wsipipe.settings import ClusterSettings, RunSettings

RETRIES = 2
"""How often an order is repeated after an error of the operating system, such as a file server that is away."""
CONNECT_SECONDS = 30.0
"""How long a scheduler is looked for."""
REFRESH_SECONDS = 5.0
"""How often the workers are counted: they come and go."""


class DaskEngine:
    """Does tasks on Dask workers: those of a cluster of its own on this machine, or of one that is running.

    Parameters
    ----------
    run : RunSettings
    cluster : ClusterSettings
    say : callable
        Hears the link to the dashboard, and why nothing happens.
    """

    predictor: AnyPredictor | None = None

    def __init__(self, run: RunSettings, cluster: ClusterSettings, say: Callable[[str], None]) -> None:
        self.settings, self.workers, self.say = cluster, run.workers, say
        self.local = not cluster.scheduler
        self._marked: set[str] = set()
        self._counted = -REFRESH_SECONDS
        self._lanes = Lanes(0, 0, True)
        self._threads = 0
        self._pace = Pace()

    def __enter__(self) -> Self:
        from distributed import Client

        self._cluster: Any = None
        address = self.settings.scheduler
        if self.local:
            try:
                self._cluster, self._threads = local_cluster(self.workers, self.settings.devices)
            except (RuntimeError, TimeoutError) as error:
                raise ClusterError(
                    f"a worker process did not start ({error}); it was ended from outside, or there is no memory for "
                    "it: give fewer --workers"
                ) from error
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

    def _watch(self, give_up: Callable[[], None]) -> Watch:
        """Return who calls *give_up* when workers die again and again."""

        def workers() -> set[str]:
            return set(self.client.scheduler_info(n_workers=-1)["workers"])

        return Watch(workers, give_up, PATIENCE if self.local else math.inf)

    def _resources(self, kind: str) -> dict[str, int] | None:
        """Return what a worker must own to be given a task of *kind*."""
        return {kind: 1} if kind in self._marked else None

    def forward(self, model: str, sha256: str, run: RunSettings, batch: int) -> Forward:
        """Ask a worker; see :class:`~wsipipe.schedule.engine.Engine`."""
        if not self._count().predict:
            self.say(f"waiting for workers of {self.settings.scheduler or 'the local cluster'}")
            self.client.wait_for_workers(1)
            self._counted = -REFRESH_SECONDS
            self._count()
        from distributed import KilledWorker

        wanted = (model, sha256, run.device, run.precision, batch, run.engine)
        future = self.client.submit(describe, self._threads, wanted, pure=False, resources=self._resources(PREDICT))
        watch = self._watch(future.cancel)
        try:
            with watch:
                version, forward = future.result()
        except (ModuleNotFoundError, CancelledError, KilledWorker) as error:
            raise _hopeless(watch) or _cluster_error(error) from error
        except RuntimeError as error:
            if "deserialization" not in str(error):
                raise
            raise ClusterError(
                f"the scheduler at {self.settings.scheduler} cannot read our tasks; install the same wsipipe and dask "
                "where scheduler and workers run"
            ) from error
        if version != __version__:
            raise ClusterError(f"the workers have wsipipe {version}, this is {__version__}; install the same")
        return forward

    # --- tasks -----------------------------------------------------------------------------------------------------

    def run(self, folder: Path, board: Board, report: Report, so_far: SoFar) -> None:
        """Keep a bounded number of orders in flight until *board* is done. A lost worker's orders are repeated."""
        where = os.path.abspath(folder)
        self.client.subscribe_topic(topic(where), lambda event: so_far(*event[1]))
        with self.client.as_current():
            self._run(Scratch(folder), where, board, report)
        self.client.unsubscribe_topic(topic(where))

    def _run(self, scratch: Scratch, where: str, board: Board, report: Report) -> None:
        from distributed import as_completed, wait

        flying: dict[Any, Order] = {}
        failed: list[Order] = []
        tries: Counter[Order] = Counter()
        landing = as_completed(loop=self.client.loop)
        with self._watch(lambda: self.client.cancel(list(flying))) as watch:
            try:
                while not board.done:
                    futures = self._send(failed + self._orders(board, flying.values()), where)
                    flying |= futures
                    landing.update(futures)
                    if not flying:  # nobody is there to work
                        time.sleep(0.2)
                        continue
                    landed = landing.next_batch()
                    if watch.reason:
                        raise CancelledError
                    done = [future for future in landed if future.status == "finished"]
                    for future, receipts in zip(done, self.client.gather(done), strict=True):
                        del flying[future]
                        self._pace.heard(receipts)
                        watch.heard()
                        for receipt in receipts:
                            scratch.drop(board.finish(receipt.task))
                            report(receipt)
                    failed = [_again(future, flying.pop(future), tries) for future in landed if future in flying]
            except CancelledError as error:
                raise _hopeless(watch, flying.values()) or _cluster_error(error) from error
            except Exception:
                if flying:
                    wait(list(flying))  # nothing may write behind the back of what comes next
                raise

    def _orders(self, board: Board, flying: Iterable[Order]) -> list[Order]:
        """Take from *board* what may be submitted while *flying* orders are under way."""
        count = Counter(order.kind for order in flying)
        orders: list[Order] = []
        lanes = self._count()
        while (kinds := lanes.wanted(count)) and (order := self._pace.next(board, kinds, lanes)):
            orders.append(order)
            count[order.kind] += 1
        return orders

    def _send(self, orders: Sequence[Order], where: str) -> dict[Any, Order]:
        """Submit *orders*, in one message for all that may run on the same workers."""
        groups: dict[str, list[Order]] = defaultdict(list)
        for order in orders:
            groups[order.kind if order.kind in self._marked else ""].append(order)
        sent: dict[Any, Order] = {}
        for kind, group in groups.items():
            kinds, blocks = zip(*group, strict=True)
            needs, threads = self._resources(kind), self._threads
            futures = self.client.map(do, kinds, blocks, folder=where, threads=threads, pure=False, resources=needs)
            sent |= dict(zip(futures, group, strict=True))
        return sent


def _again(future: Any, order: Order, tries: Counter[Order]) -> Order:
    """Return the *order* that failed, if it may succeed the next time; raises its error if not."""
    error = future.exception() or CancelledError()
    if not _passing(error) or tries[order] == RETRIES:
        raise _cluster_error(error, order) from error
    tries[order] += 1
    return order


def _hopeless(watch: Watch, orders: Iterable[Order] = ()) -> ClusterError | None:
    """Return the error to raise after *watch* gave up with *orders* under way; None where it did not."""
    if not watch.reason:
        return None
    blocks = ", ".join(str(block) for order in orders for block in order.blocks) or "none, the model was being loaded"
    return ClusterError(
        f"{watch.reason} (blocks under way: {blocks}); something ends them, most likely for lack of memory: give a "
        "smaller --block, or fewer --workers"
    )


def _passing(error: BaseException) -> bool:
    """Whether *error* may be gone the next time."""
    return isinstance(error, OSError) and not isinstance(error, WsipipeError)


def _cluster_error(error: BaseException, order: Order | None = None) -> BaseException:
    """Return the error to raise for *error* of a task: in our words where the cluster is to blame."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        where = f"block {', '.join(map(str, order.blocks))}" if order else "loading the model"
        return ClusterError(
            f"workers died again and again at {where}, most likely for lack of memory; give a smaller --block, "
            "or fewer --workers"
        )
    if isinstance(error, CancelledError):
        return ClusterError("the scheduler is gone, or was restarted; the same command resumes what is done")
    if isinstance(error, ModuleNotFoundError):
        return ClusterError(f"a worker has no module {error.name}; install wsipipe where the workers run")
    return error
