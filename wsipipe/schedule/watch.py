"""An end to endless beginning: who gives up when workers die, again and again, and nothing gets done."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

LOSSES = 4
"""Deaths for each worker that was there, without a block done in between, after which to give up."""
PAUSE = 1.0
"""Seconds between two looks."""
PATIENCE = 120.0
"""Seconds that this machine may be without any worker process."""


class Watch:
    """Looks at the workers from a thread of its own while others wait for results.

    Parameters
    ----------
    workers : callable
        Returns the addresses of the workers there are; one that was started again has another.
    give_up : callable
        Called when it is hopeless; :attr:`reason` says why then.
    patience : float
        Seconds without any worker.
    """

    def __init__(
        self, workers: Callable[[], set[str]], give_up: Callable[[], None], patience: float = math.inf
    ) -> None:
        self._workers, self._give_up, self._patience = workers, give_up, patience
        self._ended = threading.Event()
        self._lost = 0
        self.reason = ""
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def heard(self) -> None:
        """Note that something was done."""
        self._lost = 0

    def _look(self) -> None:
        before, since = self._seen(set()), time.monotonic()
        most = LOSSES * max(1, len(before))
        while not self._ended.wait(PAUSE):
            now = self._seen(before)
            self._lost += len(before - now)
            since = time.monotonic() if now else since
            before = now
            if self._lost > most:
                self.reason = f"workers died {self._lost} times and no block was done"
            elif time.monotonic() - since > self._patience:
                self.reason = f"no worker process was there for {self._patience:.0f} seconds"
            if self.reason:
                self._give_up()
                return

    def _seen(self, before: set[str]) -> set[str]:
        """Return the workers; those of *before* while the scheduler does not answer."""
        try:
            return self._workers()
        except (OSError, RuntimeError, ValueError, TimeoutError):
            return before
