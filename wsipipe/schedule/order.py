"""Orders: some blocks that a worker does one after the other, so that quick blocks do not drown in messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from wsipipe.schedule.task import CELLS, PREDICT, Board, Receipt

IN_FLIGHT = 2
"""Orders per lane that are submitted at a time: one runs, one is at hand when it ends."""
ORDER_SECONDS = 1.0
"""How long an order may take; a block that takes longer is an order of its own."""
MOST_BLOCKS = 32
"""Blocks of an order, however quick they are."""


class Order(NamedTuple):
    """One kind of task for several blocks."""

    kind: str
    blocks: tuple[int, ...]


class Lanes(NamedTuple):
    """How many tasks of each kind run at a time, and whether they run on the same workers."""

    predict: int
    cells: int
    shared: bool

    def of(self, kind: str) -> int:
        """Return how many tasks of *kind* run at a time."""
        return self.cells if kind == CELLS else self.predict

    def wanted(self, flying: Counter[str]) -> tuple[str, ...]:
        """Return which kinds of tasks may be submitted while the orders of *flying* are under way.

        Forwarding pauses when cells lag behind, so that few maps wait on disk.
        """
        if self.shared:
            return (CELLS, PREDICT) if flying.total() < IN_FLIGHT * self.cells else ()
        if flying[CELLS] >= IN_FLIGHT * self.cells:
            return ()
        return (CELLS, PREDICT) if flying[PREDICT] < IN_FLIGHT * self.predict else (CELLS,)


class Pace:
    """How many blocks an order holds, by how long blocks took of late."""

    def __init__(self) -> None:
        self._longest: dict[str, float] = {}

    def heard(self, receipts: Sequence[Receipt]) -> None:
        """Learn from the *receipts* of an order: what counts is its longest block, as a slide's others may be alike."""
        kind = receipts[0].task.kind
        longest = max(sum(receipt.seconds.values()) for receipt in receipts)
        self._longest[kind] = max(longest, self._longest.get(kind, 0.0) / 2)

    def blocks(self, kind: str) -> int:
        """Return how many blocks of *kind* an order may hold; one, as long as nothing is known."""
        longest = self._longest.get(kind, ORDER_SECONDS)
        return MOST_BLOCKS if longest * MOST_BLOCKS < ORDER_SECONDS else max(1, int(ORDER_SECONDS / longest))

    def next(self, board: Board, kinds: Sequence[str], lanes: Lanes) -> Order | None:
        """Take the next order (of these *kinds*) from *board*, else None; it leaves work for all lanes."""
        task = board.take(*kinds)
        if task is None:
            return None
        wanted = min(self.blocks(task.kind), -(-(1 + board.ready(task.kind)) // lanes.of(task.kind)))
        more = (board.take(task.kind) for _ in range(wanted - 1))
        return Order(task.kind, (task.block, *(other.block for other in more if other is not None)))
