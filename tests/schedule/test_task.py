"""The plan comes back from disk; the board runs every task once, in time, and frees scratch exactly when it may."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsipipe.cells.rules import CellRules
from wsipipe.geometry import Grid, intersect, is_empty
from wsipipe.raster.tiling import TileGrid
from wsipipe.schedule.task import CELLS, PREDICT, Board, Plan, Task
from wsipipe.settings import GridSettings, RunSettings, SlideSettings
from wsipipe.units import Box

RULES = CellRules(0.5, 0.6, 4.0, 3, 17, peak_px=3)


def plan_of(
    size: tuple[int, int],
    selected: NDArray[np.bool_],
    block: int = 256,
    shift: tuple[int, int] = (0, 0),
    overlap: int = 64,
) -> Plan:
    """Return a plan with small halos."""
    return Plan(
        source="/slides/a.svs",
        slide=SlideSettings(mpp=0.5),
        grid=GridSettings(overlap=overlap),
        run=RunSettings(block=block),
        model="/models/m.safetensors",
        working=Grid(size, (2.0, 2.01), (0.5, 0.5025), 1, (1.0, 1.0)),
        rules=RULES,
        names=("foreground", "marker"),
        classes=("a", "b"),
        expand_um=1.5,
        bounds=(1, 2, 30, 40),
        slide_fingerprint="ab" * 32,
        fingerprint="cd" * 32,
        selected=selected,
        shift=shift,
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw plans of up to a few dozen blocks with any set of selected tiles."""
    size = draw(st.tuples(st.integers(1, 1500), st.integers(1, 1500)))
    overlap, block = draw(st.sampled_from([0, 64, 128])), draw(st.sampled_from([256, 300, 512, 2048]))
    nx, ny = TileGrid(size, overlap).counts
    share = draw(st.sampled_from([0.0, 0.05, 0.4, 1.0]))
    selected = np.random.default_rng(draw(st.integers(0, 10**6))).random((ny, nx)) < share
    return plan_of(size, selected, block, draw(st.tuples(st.integers(0, 400), st.integers(0, 400))), overlap)


def overlap(a: Box, b: Box) -> bool:
    return not is_empty(intersect(a, b))


def chosen(plan: Plan) -> list[tuple[int, int]]:
    return [(int(i), int(j)) for j, i in zip(*np.nonzero(plan.selected), strict=True)]


@cache
def sources(plan: Plan, block: int) -> frozenset[int]:
    """Return the blocks whose files the cells of *block* read, from the definition and without shortcuts."""
    window = plan.window(block)
    owners = {int(plan.owners[j, i]) for i, j in chosen(plan) if overlap(plan.tiles.box(i, j), window)}
    around = {b for b, core in enumerate(plan.blocks) if overlap(core, window)}
    return frozenset(owners | (around & with_files(plan)))


def covered(plan: Plan) -> set[int]:
    """Return the blocks over whose core some selected tile lies."""
    boxes = [plan.tiles.box(i, j) for i, j in chosen(plan)]
    return {b for b, core in enumerate(plan.blocks) if any(overlap(core, box) for box in boxes)}


@cache
def with_files(plan: Plan) -> set[int]:
    return covered(plan) | {int(plan.owners[j, i]) for i, j in chosen(plan)}


@settings(max_examples=40, deadline=None)
@given(plans())
def test_every_selected_tile_belongs_to_one_block(plan: Plan) -> None:
    owned = [tile for block in range(len(plan.blocks)) for tile in plan.tiles_of(block)]
    assert sorted(owned) == sorted(chosen(plan)) and len(set(owned)) == len(owned)


@settings(max_examples=40, deadline=None)
@given(plans(), st.tuples(*[st.integers(-100, 1600)] * 4))
def test_tiles_and_blocks_over_a_box(plan: Plan, corners: tuple[int, int, int, int]) -> None:
    box = (*(min(corners[i], corners[i + 2]) for i in (0, 1)), *(max(corners[i], corners[i + 2]) + 1 for i in (0, 1)))
    assert plan.tiles_over(box) == [t for t in chosen(plan) if overlap(plan.tiles.box(*t), box)]
    assert plan.blocks_over(box) == [b for b, core in enumerate(plan.blocks) if overlap(core, box)]


class Run:
    """Plays a run on a board: any number of tasks in flight, finished in any order."""

    def __init__(self, plan: Plan, predicted: set[int], finished: set[int]) -> None:
        self.plan, self.board = plan, Board(plan, predicted, finished)
        self.files = set(predicted)
        self.ran: list[Task] = []
        self.freed: list[int] = []
        self.left = covered(plan) - finished

    def start(self, task: Task) -> None:
        assert task not in self.ran
        self.ran.append(task)
        if task.kind == CELLS:
            assert sources(self.plan, task.block) <= self.files
        else:
            assert task.block not in self.files

    def finish(self, task: Task) -> None:
        before = self.needed()
        free = self.board.finish(task)
        if task.kind == PREDICT:
            assert free == []
            self.files.add(task.block)
            return
        self.left.remove(task.block)
        assert set(free) == before - self.needed() and len(set(free)) == len(free)
        self.files -= set(free)
        self.freed += free

    def needed(self) -> set[int]:
        return set().union(*(sources(self.plan, block) for block in self.left))


def play(run: Run, data: st.DataObject) -> None:
    """Run to the end, with up to four tasks in flight."""
    flying: list[Task] = []
    while not run.board.done:
        while len(flying) < 4 and (task := run.board.take()) is not None:
            run.start(task)
            flying.append(task)
        assert flying, "nothing runs and the board is not done"
        run.finish(flying.pop(data.draw(st.integers(0, len(flying) - 1))))
    assert run.board.take() is None


@settings(max_examples=25, deadline=None)
@given(plans(), st.data())
def test_a_fresh_run_does_everything_once(plan: Plan, data: st.DataObject) -> None:
    run = Run(plan, set(), set())
    assert run.board.to_predict == sorted(with_files(plan))
    play(run, data)
    assert {t.block for t in run.ran if t.kind == PREDICT} == with_files(plan)
    assert {t.block for t in run.ran if t.kind == CELLS} == covered(plan)
    assert sorted(run.freed) == sorted(with_files(plan)) and not run.files


@settings(max_examples=25, deadline=None)
@given(plans(), st.data())
def test_a_resumed_run_does_what_is_left(plan: Plan, data: st.DataObject) -> None:
    blocks = st.sets(st.integers(0, len(plan.blocks) - 1))
    predicted, finished = data.draw(blocks) & with_files(plan), data.draw(blocks) & covered(plan)
    run = Run(plan, predicted, finished)
    needed = run.needed()
    assert set(run.board.to_predict) == needed - predicted
    play(run, data)
    assert {t.block for t in run.ran if t.kind == PREDICT} == needed - predicted
    assert {t.block for t in run.ran if t.kind == CELLS} == covered(plan) - finished
    assert run.board.finished == covered(plan) and set(run.freed) == needed


def test_serial_runs_cells_as_soon_as_they_can_and_keeps_few_files() -> None:
    size = 256 * 8, 256 * 8
    nx, ny = TileGrid(size, 64).counts
    run, most = Run(plan_of(size, np.ones((ny, nx), bool)), set(), set()), 0
    while (task := run.board.take()) is not None:
        run.start(task)
        run.finish(task)
        most = max(most, len(run.files))
    assert run.board.done and most <= 3 * 8


def test_no_tissue_is_nothing_to_do() -> None:
    board = Board(plan_of((900, 700), np.zeros((4, 5), bool)))
    assert board.done and board.take() is None and not board.all_cells and not board.all_predict


def test_a_plan_comes_back_from_disk(tmp_path: Path) -> None:
    plan = plan_of((900, 700), np.random.default_rng(0).random((4, 5)) < 0.5, 300, (17, 29))
    plan.save(tmp_path)
    again = Plan.load(tmp_path)
    for field in dataclasses.fields(Plan):
        ours, theirs = getattr(again, field.name), getattr(plan, field.name)
        assert type(ours) is type(theirs)
        assert np.array_equal(ours, theirs) if field.name == "selected" else ours == theirs, field.name
    assert again.blocks == plan.blocks and again.halo == plan.halo and np.array_equal(again.owners, plan.owners)
    dataclasses.replace(plan, bounds=None).save(tmp_path)
    assert Plan.load(tmp_path).bounds is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plan.json", "selected.npy"]


def test_windows_reach_the_halo_and_stay_on_the_slide() -> None:
    plan = plan_of((900, 700), np.ones((4, 5), bool), 300)
    assert plan.blocks[0] == (0, 0, 300, 300) and plan.blocks[4] == (300, 300, 600, 600)
    assert plan.window(0) == (0, 0, 300 + plan.halo, 300 + plan.halo)
    assert plan.window(4) == (300 - plan.halo, 300 - plan.halo, 600 + plan.halo, min(700, 600 + plan.halo))
