"""Progress bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from wsipipe.schedule.progress import Progress

QUIET_SECONDS = 1.0 if os.environ.get("WSIPIPE_PROGRESS") == "lines" else 15.0
"""Where there is no terminal: seconds between two lines of progress."""


class TerminalProgress(Progress):
    """Draws one bar a stage on stderr; where that is no terminal, prints a line now and then."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.bars = Bars(*columns, console=self.console, disable=not sys.stderr.isatty())
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._spoke = time.monotonic()
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def start(self, stage: str, total: int) -> None:
        """Begin a bar."""
        self._totals[stage], self._done[stage] = total, 0
        if stage in self._tasks:
            self.bars.reset(self._tasks[stage], total=total)
        else:
            self._tasks[stage] = self.bars.add_task(stage, total=total)

    def advance(self, stage: str, steps: int = 1) -> None:
        """Move a bar on."""
        with self._turn:  # workers tell of tiles from a thread of their own
            self._done[stage] += steps
            speak = self.bars.disable and time.monotonic() - self._spoke > QUIET_SECONDS
            if speak:
                self._spoke = time.monotonic()
        self.bars.advance(self._tasks[stage], steps)
        if speak:
            self.console.print(", ".join(f"{s} {self._done[s]}/{n}" for s, n in self._totals.items()))

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, markup=False)
