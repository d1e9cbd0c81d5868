"""Orders: quick blocks together, slow ones alone, every block once, and some for every lane."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.schedule.test_task import plan_of
from wsipipe.schedule.order import MOST_BLOCKS, Lanes, Pace
from wsipipe.schedule.task import CELLS, PREDICT, Board, Receipt, Task

BOTH = (CELLS, PREDICT)


def board() -> Board:
    """Return the board of 64 blocks."""
    return Board(plan_of((2048, 2048), np.ones((11, 11), bool)))


def heard(pace: Pace, kind: str, *seconds: float) -> None:
    pace.heard([Receipt(Task(kind, block), 1, {"a": s / 2, "b": s / 2}) for block, s in enumerate(seconds)])


@pytest.mark.parametrize(
    ("seconds", "blocks"), [((60.0,), 1), ((0.3, 0.01), 3), ((0.001,), MOST_BLOCKS), ((0.0,), MOST_BLOCKS)]
)
def test_an_order_takes_about_a_second(seconds: tuple[float, ...], blocks: int) -> None:
    pace = Pace()
    assert pace.blocks(PREDICT) == 1, "nothing is known yet"
    heard(pace, PREDICT, *seconds)
    assert pace.blocks(PREDICT) == blocks and pace.blocks(CELLS) == 1


def test_a_slow_block_is_remembered_for_a_while() -> None:
    pace = Pace()
    heard(pace, CELLS, 8.0)
    for expected in (1, 1, 1, 2, 4):
        heard(pace, CELLS, 0.001)
        assert pace.blocks(CELLS) == expected


def test_orders_are_runs_of_blocks_and_leave_some_for_every_lane() -> None:
    pace, todo, lanes = Pace(), board(), Lanes(2, 2, True)
    heard(pace, PREDICT, 0.0)
    first, second = pace.next(todo, BOTH, lanes), pace.next(todo, BOTH, lanes)
    assert first is not None and first == (PREDICT, tuple(range(32))), "half, for two lanes"
    assert second is not None and second == (PREDICT, tuple(range(32, 48)))
    alone = pace.next(board(), BOTH, Lanes(64, 1, False))
    assert alone == (PREDICT, (0,))


def test_every_task_is_ordered_once() -> None:
    pace, todo, lanes = Pace(), board(), Lanes(1, 3, False)
    ran: Counter[Task] = Counter()
    while not todo.done:
        order = pace.next(todo, BOTH, lanes)
        assert order is not None
        heard(pace, order.kind, 0.01)
        for block in order.blocks:
            ran[Task(order.kind, block)] += 1
            todo.finish(Task(order.kind, block))
    assert ran == Counter(Task(kind, block) for kind in BOTH for block in range(64))
    assert pace.next(todo, BOTH, lanes) is None
