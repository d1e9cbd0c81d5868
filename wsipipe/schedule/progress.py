"""What a run tells whoever watches it."""

from __future__ import annotations

import threading
from collections.abc import Callable

SoFar = Callable[[int, int], None]
"""Hears of a block how many of its tiles have been forwarded by now."""


class Progress:
    """Listens to a run; this one ignores everything. The command line draws bars."""

    def start(self, stage: str, total: int) -> None:
        """Hear that *stage* begins, with *total* steps."""

    def advance(self, stage: str, steps: int = 1) -> None:
        """Hear that *steps* of *stage* are done."""

    def say(self, line: str) -> None:
        """Hear a line for the user: a warning, a link."""


class Reached:
    """Moves a stage on to how far it is by now, as loops tell it that count for themselves."""

    def __init__(self, progress: Progress, stage: str) -> None:
        self._progress, self._stage, self.done = progress, stage, 0

    def __call__(self, done: int) -> None:
        """Note that *done* steps are done by now."""
        self._progress.advance(self._stage, done - self.done)
        self.done = done


class TileCount:
    """Moves the stage ``tiles`` on while blocks are forwarded, batch by batch, and by the rest when a block is done.

    Several threads may tell of blocks; a block that is begun again, as its worker died, moves nothing until it is
    further than before.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told: dict[int, int] = {}
        self._turn = threading.Lock()

    def so_far(self, block: int, tiles: int) -> None:
        """Note that *tiles* of *block* have been forwarded by now."""
        with self._turn:
            more = tiles - self._told.get(block, 0)
            if more > 0:
                self._told[block] = tiles
        if more > 0:
            self._progress.advance("tiles", more)
