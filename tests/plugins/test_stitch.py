"""Objects of overlapping tiles: none cut, none twice, whatever the tiles disagree about."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsipipe.cells.instances import CellRules, Cells
from wsipipe.errors import SettingsError
from wsipipe.plugins.maps import names_of, packed
from wsipipe.plugins.protocol import Looks
from wsipipe.plugins.stitch import halo, stitch, tiling
from wsipipe.raster.tiling import TileGrid, blocks

RULES = CellRules(threshold=0.5, marker_threshold=0.5, min_area_px=1, growth_px=2, max_diameter_px=20)
NAMES = names_of(())
BAND = 4.0
SIZE = (230, 190)


def tile_of(shapes: list[tuple[int, int, int]], box: tuple[int, int, int, int], side: int) -> NDArray[np.uint8]:
    """Return the maps of the discs (x, y, radius) that one tile shows."""
    labels = np.zeros((side, side), np.int32)
    for k, (x, y, radius) in enumerate(shapes, 1):
        cv2.circle(labels, (x - box[0], y - box[1]), radius, k, -1)
    numbers, labels = np.unique(labels, return_inverse=True)
    labels = labels.reshape(side, side) + (numbers[0] != 0)
    return packed(labels, np.ones(int(labels.max())), np.zeros((int(labels.max()), 0)))


def centres(cells: Cells) -> list[tuple[float, float]]:
    return sorted(map(tuple, (cells.sums[:, 1:] / cells.sums[:, :1]).round(4).tolist()))


def test_an_object_of_several_tiles_is_one_cell() -> None:
    grid = TileGrid(SIZE, 48, 96)
    shapes = [(x, y, 7) for x in range(14, 220, 23) for y in range(14, 180, 21)]
    tiles = {(i, j): tile_of(shapes, grid.box(i, j), 96) for j in range(grid.counts[1]) for i in range(grid.counts[0])}
    whole = 0, 0, *SIZE
    cells, covered = stitch(whole, grid, tiles, NAMES, whole, RULES, BAND)
    assert centres(cells) == sorted((float(x), float(y)) for x, y, _ in shapes)
    assert len(set(cells.sums[:, 0].tolist())) == 1, "none is cut"
    assert covered.max() == 255


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([40, 64, 97]))
def test_tiles_that_disagree_lose_and_double_nothing(seed: int, block: int) -> None:
    """Every tile sees every disc up to 1 px away from where it is; blocks of any size find the same cells."""
    rng = np.random.default_rng(seed)
    grid = TileGrid(SIZE, 48, 96)
    there = [(x, y) for x in range(14, 220, 22) for y in range(14, 180, 22)]
    tiles = {}
    for j in range(grid.counts[1]):
        for i in range(grid.counts[0]):
            shapes = [
                (x + int(rng.integers(-1, 2)), y + int(rng.integers(-1, 2)), int(rng.integers(6, 8))) for x, y in there
            ]
            tiles[i, j] = tile_of(shapes, grid.box(i, j), 96)
    whole = 0, 0, *SIZE
    cells, _ = stitch(whole, grid, tiles, NAMES, whole, RULES, BAND)
    found = np.array(centres(cells))
    assert len(found) == len(there)
    distance = np.abs(found[:, None] - np.array(there)[None]).max(axis=2)
    assert (distance.min(axis=0) <= 2).all() and (distance.min(axis=1) <= 2).all(), "each disc once"
    parts = []
    for one in blocks(SIZE, block):
        x0, y0, x1, y1 = one.core
        reach = halo(RULES)
        window = max(0, x0 - reach), max(0, y0 - reach), min(SIZE[0], x1 + reach), min(SIZE[1], y1 + reach)
        i0, j0, i1, j1 = grid.tiles_over(window)
        near = {(i, j): maps for (i, j), maps in tiles.items() if i0 <= i < i1 and j0 <= j < j1}
        parts += centres(stitch(window, grid, near, NAMES, one.core, RULES, BAND)[0])
    assert sorted(parts) == centres(cells)


def test_the_pieces_of_what_another_tile_sees_as_one() -> None:
    """One tile sees a nucleus, its neighbour two: the deeper one is believed, and nothing is left of the other."""
    grid = TileGrid((144, 96), 48, 96)
    whole = 0, 0, 144, 96
    left, right = tile_of([(66, 40, 8)], grid.box(0, 0), 96), tile_of([(61, 40, 3), (69, 40, 4)], grid.box(1, 0), 96)
    cells, _ = stitch(whole, grid, {(0, 0): left, (1, 0): right}, NAMES, whole, RULES, BAND)
    assert centres(cells) == [(66.0, 40.0)]
    moved = tile_of([(76, 40, 8)], grid.box(0, 0), 96), tile_of([(71, 40, 3), (79, 40, 4)], grid.box(1, 0), 96)
    cells, _ = stitch(whole, grid, {(0, 0): moved[0], (1, 0): moved[1]}, NAMES, whole, RULES, BAND)
    assert centres(cells) == [(71.0, 40.0), (79.0, 40.0)]


def test_what_is_larger_than_a_cell_is_cut_and_says_so() -> None:
    grid = TileGrid((96, 96), 48, 96)
    cells, _ = stitch(
        (0, 0, 96, 96), grid, {(0, 0): tile_of([(48, 48, 30)], (0, 0, 96, 96), 96)}, NAMES, (0, 0, 96, 96), RULES, BAND
    )
    assert cells.oversize.tolist() == [True] and (cells.box[0, 2:] - cells.box[0, :2]).tolist() == [20, 20]


def test_objects_are_whole_and_have_no_holes() -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[10:20, 10:20] = 1
    labels[14, 14] = 0
    labels[30, 30] = 1
    maps = packed(labels, np.array([0.6]), np.zeros((1, 0)))
    assert (maps[0] == 1).sum() == 100 and set(np.unique(maps[2])) == {0, 153}


def test_a_frame_around_the_tile_swallows_nothing() -> None:
    """Networks that pad with zeros see a dark frame; it encloses all others, and is no cell."""
    grid = TileGrid((96, 96), 48, 96)
    labels = np.zeros((96, 96), np.int32)
    labels[[0, -1]] = labels[:, [0, -1]] = 1
    labels[40:50, 40:50] = 2
    maps = packed(labels, np.ones(2), np.zeros((2, 0)))
    cells, _ = stitch((0, 0, 96, 96), grid, {(0, 0): maps}, NAMES, (0, 0, 96, 96), RULES, BAND)
    assert cells.sums[:, 0].tolist() == [100]


def test_tiles_too_small_for_objects_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"tiles of 128 px are too small for objects of 20 px .* tile = 320"):
        tiling(Looks(0.5, tile=128, context=48), RULES, 0.5)
    side, overlap = tiling(Looks(0.5, tile=320, context=48), RULES, 0.5)
    assert overlap >= 2 * (20 + 48) and (side - overlap) % 32 == 0
