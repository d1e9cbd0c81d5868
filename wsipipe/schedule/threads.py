"""Threads that an interrupt leaves behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType


class Threads(ThreadPoolExecutor):
    """A pool of threads whose ``with`` block ends at once when it is interrupted.

    After an error what has begun is waited for, so that nothing writes behind the back of what comes next; what has
    not begun is dropped. After Ctrl-C nothing is waited for.
    """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is not None and not issubclass(kind, Exception)
        self.shutdown(wait=not interrupted, cancel_futures=kind is not None)
