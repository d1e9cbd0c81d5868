"""Which cells a window shows, against brute force; and the bytes that the browser draws."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.masters import write_master
from wsipipe.formats.parquet import read_cells
from wsipipe.view import layer
from wsipipe.view.index import CellIndex, ranges
from wsipipe.view.wanted import Wanted

N = 2500
RNG = np.random.default_rng(3)
XY = RNG.uniform((15, 15), (1185, 785), (N, 2))
KINDS = RNG.integers(-1, 2, N)
BOXES = np.hstack([np.floor(XY - 8), np.ceil(XY + 8)])
"""As the file keeps them, in whole pixels."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CellIndex:
    """Return 2500 cells in row groups of 256 px."""
    path = tmp_path_factory.mktemp("view") / "cells.parquet"
    return CellIndex(write_master(path, XY, KINDS, 8.0, {"area_um2": RNG.uniform(0, 100, N)}, bin_px=256))


@given(
    st.floats(-100, 1300), st.floats(-100, 900), st.floats(0.5, 700), st.sets(st.sampled_from([0, 1, 2]), max_size=3)
)
@settings(max_examples=60)
def test_windows_agree_with_brute_force(index: CellIndex, x: float, y: float, side: float, hide: set[int]) -> None:
    box, wanted = (x, y, x + side, y + side), Wanted(frozenset(hide))
    shown = ~np.isin(np.where(KINDS < 0, 2, KINDS), list(hide))
    cx, cy = XY.astype(np.float32).astype(np.float64).T  # as they are kept in memory
    inside = (x <= cx) & (cx < x + side) & (y <= cy) & (cy < y + side)
    assert len(index.dots(box, wanted).codes) == (inside & shown).sum()
    meets = (BOXES[:, 0] <= x + side) & (BOXES[:, 2] >= x) & (BOXES[:, 1] <= y + side) & (BOXES[:, 3] >= y)
    codes, lengths, vertices = index.outlines(box, wanted)
    assert len(codes) == (meets & shown).sum()
    assert (lengths == 5).all() and len(vertices) == lengths.sum()


def test_a_window_is_not_rounded(index: CellIndex) -> None:
    """Boxes are kept in single precision, in which 70.9999999 is 71."""
    first = BOXES[:, 0].argmin()
    left, (x, y) = BOXES[first, 0].item(), XY[first].astype(np.float32).tolist()
    assert len(index.outlines((left - 9, y - 1, left - 1e-7, y + 1)).codes) == 0
    assert len(index.outlines((left - 9, y - 1, left, y + 1)).codes) > 0
    assert len(index.dots((x - 9, y - 1e-3, x, y + 1e-3)).codes) == 0
    assert len(index.dots((x - 9, y - 1e-3, x + 1e-9, y + 1e-3)).codes) == 1


def test_outlines_are_those_of_the_file(index: CellIndex) -> None:
    codes, _, vertices = index.outlines((0, 0, 1200, 800))
    cells = read_cells(index._path)
    want = shapely.get_coordinates(cells.geometry.to_numpy())
    np.testing.assert_allclose(vertices, want, atol=1e-3)
    names = np.array(["Dead", "Epithelial", None], object)[codes]
    assert names.tolist() == cells["class"].astype(object).where(cells["class"].notna(), None).tolist()


def test_the_cell_under_a_point(index: CellIndex) -> None:
    cells = read_cells(index._path)
    for row in (0, 7, N - 1):
        cell = cells.iloc[row]
        found = index.at(cell.x, cell.y)
        assert found is not None
        over = cells[cells.geometry.contains(shapely.Point(cell.x, cell.y))]
        assert found["cell_id"] in set(over.cell_id)
        assert found["area_um2"] == pytest.approx(cells.set_index("cell_id").area_um2[found["cell_id"]])
    assert index.at(-5, -5) is None
    everything = Wanted(frozenset({0, 1, 2}))
    assert index.at(float(cells.x[0]), float(cells.y[0]), everything) is None


def test_colours_by_a_measurement(index: CellIndex) -> None:
    low, high = index.spread("area_um2")
    area = read_cells(index._path).area_um2.to_numpy()
    assert (low, high) == pytest.approx(np.quantile(area, (0.02, 0.98)))
    codes = index.dots((0, 0, 1200, 800), measure="area_um2").codes
    np.testing.assert_allclose(codes, np.clip((area - low) / (high - low), 0, 1) * 254, atol=0.51)


def test_classes_and_counts(index: CellIndex) -> None:
    told = {c["name"]: c["cells"] for c in index.classes()}
    assert told == {"Dead": (KINDS == 0).sum(), "Epithelial": (KINDS == 1).sum(), "no class": (KINDS < 0).sum()}
    counts = index.counts(100)
    assert counts.shape == (8, 12) and counts.sum() == N
    column, row = (XY[:, 0] // 100).astype(int), (XY[:, 1] // 100).astype(int)
    want = np.zeros((8, 12))
    np.add.at(want, (row, column), 1)
    assert np.abs(counts - want).max() <= 1
    assert index.counts(100, Wanted(frozenset({0}))).sum() == (KINDS != 0).sum()


def parse(data: bytes) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Return kind, codes, numbers and points of a tile, as the browser reads them."""
    kind, n = struct.unpack("<II", data[:8])
    at = 8 + n + -n % 4
    numbers = np.frombuffer(data, "<u2" if kind == layer.OUTLINES else "u1", n, at)
    at += numbers.nbytes + -numbers.nbytes % 4
    points = np.frombuffer(data, "<i2", offset=at)
    points = points[: len(points) // 2 * 2].reshape(-1, 2)
    if kind == layer.DOTS:
        points = points[:n]
    return kind, np.frombuffer(data, "u1", n, 8), numbers, points


def test_near_tiles_hold_outlines_in_place(index: CellIndex) -> None:
    kind, codes, lengths, points = parse(layer.tile_bytes(index, 0.5, 1, 1))
    assert kind == layer.OUTLINES and len(points) == lengths.sum()
    box = (256, 256, 512, 512)
    want = index.outlines((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1))
    np.testing.assert_array_equal(codes, want.codes)
    np.testing.assert_allclose(points / 16 * 0.5 + 256, want.xy, atol=0.5 / 16)


def test_far_tiles_hold_dots_and_lose_no_cell(index: CellIndex) -> None:
    kind, codes, numbers, points = parse(layer.tile_bytes(index, 8.0, 0, 0))
    assert kind == layer.DOTS and len(codes) == N and (numbers == 1).all()
    assert points.max() <= 1200 / 8 * 16
    kind, codes, numbers, points = parse(layer.tile_bytes(index, 32.0, 0, 0))
    assert kind == layer.DOTS and len(codes) < N and numbers.sum() == N
    assert len(np.unique(points // 32, axis=0)) == len(points)  # one for a square of two by two pixels


def test_an_empty_tile_is_short(index: CellIndex) -> None:
    assert parse(layer.tile_bytes(index, 1.0, 50, 50))[1].size == 0
    assert len(layer.tile_bytes(index, 32.0, 50, 50)) == 8


def test_thinned_outlines_keep_every_cell(tmp_path: Path) -> None:
    lengths = np.array([25, 25, 9])
    assert layer.thinning(lengths, 100.0) == 1
    step = layer.thinning(lengths, 4.0)
    assert 1 < step <= 4


def test_density(index: CellIndex) -> None:
    heat = layer.density(index)
    assert heat.png.startswith(b"\x89PNG") and heat.width >= 1200 and heat.height >= 800
    mean = N / (1200 * 800 * 0.25e-6)
    assert mean < heat.top < 2.5 * mean
    assert layer.density(index, Wanted(frozenset({0, 1, 2}))).top == 0


def test_a_file_without_cells(tmp_path: Path) -> None:
    empty = CellIndex(write_master(tmp_path / "none.parquet", np.zeros((0, 2))))
    assert empty.cells == 0 and empty.at(5, 5) is None and empty.counts(100).sum() == 0
    assert layer.tile_bytes(empty, 1.0, 0, 0) and layer.tile_bytes(empty, 64.0, 0, 0)
    assert empty.spread("area_um2") == (0.0, 1.0)


def test_ranges() -> None:
    assert ranges(np.array([5, 20]), np.array([3, 2])).tolist() == [5, 6, 7, 20, 21]
    assert ranges(np.array([4, 9]), np.array([0, 1])).tolist() == [9]
