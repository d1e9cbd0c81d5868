"""Scratch files hold what was put there, and are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsipipe.artifacts import write_json
from wsipipe.geometry import intersect, is_empty
from wsipipe.schedule.scratch import EDGE, PIECE, Scratch, pieces, read_maps, read_pixels, write_maps
from wsipipe.units import Box

CORE: Box = (300, 500, 1100, 1300)
MISSING: Box = (512, 564, 1024, 1024)


def pixels_of(box: Box) -> NDArray[np.uint8]:
    """Return a picture whose every pixel tells where it lies."""
    y, x = np.mgrid[box[1] : box[3], box[0] : box[2]]
    return np.stack([x % 251, y % 241, (x // 251 + y // 241) % 256], -1).astype(np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a block's file without the pixels of one of its squares."""
    rng = np.random.default_rng(0)
    tiles = {(i, 2): rng.integers(0, 256, (3, 256, 256), np.uint8) for i in range(2)}
    pixels = {box: pixels_of(box) for box in pieces(CORE) if box != MISSING}
    write_maps(tmp_path / "b.zip", tiles, pixels, [(5, 6, 7, 8), (1, 2, 3, 4)])
    return tmp_path / "b.zip"


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(0, 3000)] * 2), st.tuples(*[st.integers(1, 1500)] * 2))
def test_pieces_partition_a_box(corner: tuple[int, int], size: tuple[int, int]) -> None:
    box = (*corner, corner[0] + size[0], corner[1] + size[1])
    count = np.zeros(size[::-1], int)
    for x0, y0, x1, y1 in pieces(box):
        assert x0 // PIECE == (x1 - 1) // PIECE and y0 // PIECE == (y1 - 1) // PIECE and x0 < x1 and y0 < y1
        near = [box[0] + EDGE, box[1] + EDGE, box[2] - EDGE, box[3] - EDGE]
        assert not (x0 < near[0] < x1 or y0 < near[1] < y1 or x0 < near[2] < x1 or y0 < near[3] < y1)
        count[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]] += 1
    assert (count == 1).all()


def test_maps_come_back(path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (3, 256, 256), np.uint8) for _ in range(2))
    maps = read_maps(path, [(1, 2), (0, 2)], 3)
    assert list(maps) == [(1, 2), (0, 2)]
    assert np.array_equal(maps[0, 2], first) and np.array_equal(maps[1, 2], second)
    assert list(read_maps(path, [(1, 2)], 3)) == [(1, 2)] and read_maps(path, [], 3) == {}


@pytest.mark.parametrize(
    "window",
    [(0, 0, 1500, 1400), (310, 510, 320, 530), (250, 400, 700, 800), (1000, 1200, 1200, 1310), (0, 0, 300, 500)],
)
def test_pixels_land_where_they_belong_and_leave_the_rest(path: Path, window: Box) -> None:
    out = np.full((window[3] - window[1], window[2] - window[0], 3), 7, np.uint8)
    assert read_pixels(path, CORE, window, out) == [(1, 2, 3, 4), (5, 6, 7, 8)]
    expected = np.full_like(out, 7)
    for box in pieces(CORE):
        part = intersect(box, window)
        if box != MISSING and not is_empty(part):
            rows, columns = (slice(part[i] - window[i], part[i + 2] - window[i]) for i in (1, 0))
            expected[rows, columns] = pixels_of(part)
    assert np.array_equal(out, expected)


def test_the_same_content_is_the_same_file(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "again.zip"
    maps = read_maps(path, [(0, 2), (1, 2)], 3)
    pixels = {box: pixels_of(box) for box in pieces(CORE) if box != MISSING}
    write_maps(other, maps, pixels, [(1, 2, 3, 4), (5, 6, 7, 8)])
    again = read_maps(other, [(0, 2), (1, 2)], 3)
    assert all(np.array_equal(again[key], maps[key]) for key in maps)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    class Broken(dict[tuple[int, int], NDArray[np.uint8]]):
        def items(self):  # type: ignore[no-untyped-def, override]
            yield (0, 0), np.zeros((1, 256, 256), np.uint8)
            raise MemoryError

    with pytest.raises(MemoryError):
        write_maps(tmp_path / "b.zip", Broken(), {}, [])
    assert list(tmp_path.iterdir()) == []


def test_a_run_knows_its_files(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "run")
    assert scratch.predicted() == scratch.finished() == set()
    scratch.create()
    scratch.create()
    for block in (0, 7, 123_456):
        write_maps(scratch.maps(block), {}, {}, [])
    scratch.part(3).write_bytes(b"")
    (scratch.maps_folder / ".00000009.zip.abcd.tmp").write_bytes(b"half")
    assert scratch.predicted() == {0, 7, 123_456} and scratch.finished() == set(), "an empty file is no part"
    scratch.drop([7, 8])
    scratch.drop([])
    assert scratch.predicted() == {0, 123_456} and read_maps(scratch.maps(0), [], 2) == {}


def test_unreadable_boxes_of_all_blocks_are_gathered_once_and_in_order(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.create()
    assert scratch.all_bad() == []
    write_json(scratch.bad(4), [(5, 6, 7, 8), (1, 2, 3, 4)])
    write_json(scratch.bad(2), [(1, 2, 3, 4), (0, 9, 9, 10)])
    assert scratch.all_bad() == [(0, 9, 9, 10), (1, 2, 3, 4), (5, 6, 7, 8)]
    assert scratch.predicted() == set()
