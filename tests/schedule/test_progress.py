"""Tiles are counted once, whoever tells of them and how often."""

from __future__ import annotations

from wsipipe.schedule.progress import Progress, TileCount


class Steps(Progress):
    def __init__(self) -> None:
        self.steps: list[tuple[str, int]] = []

    def advance(self, stage: str, steps: int = 1) -> None:
        self.steps.append((stage, steps))


def test_a_block_moves_the_bar_by_what_is_new() -> None:
    heard = Steps()
    count = TileCount(heard)
    for block, tiles in ((0, 4), (1, 4), (0, 8), (0, 8), (1, 2), (1, 4), (1, 5), (0, 9), (0, 4)):
        count.so_far(block, tiles)  # the worker of block 1 died, and another began anew
    assert heard.steps == [("tiles", n) for n in (4, 4, 4, 1, 1)]
