"""Blending is exact: no order, no partition and no neighbour changes a pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsipipe.geometry import intersect, is_empty
from wsipipe.infer.blend import blend, window
from wsipipe.raster.tiling import TILE, TileGrid
from wsipipe.units import Box

Tiles = dict[tuple[int, int], NDArray[np.uint8]]
overlaps = st.sampled_from([0, 1, 16, 32, 64, 100, 128])
sizes = st.tuples(st.integers(1, 700), st.integers(1, 700))


def some_tiles(grid: TileGrid, seed: int, share: float = 0.8) -> Tiles:
    """Return random maps of two channels for a random *share* of the tiles."""
    rng = np.random.default_rng(seed)
    nx, ny = grid.counts
    keys = [(i, j) for j in range(ny) for i in range(nx) if rng.random() < share]
    return {key: rng.integers(0, 256, (2, TILE, TILE), np.uint8) for key in keys}


def boxes(size: tuple[int, int]) -> st.SearchStrategy[Box]:
    """Return boxes of at least one pixel inside a slide of *size*."""
    spans = [st.tuples(st.integers(0, side - 1), st.integers(1, side)) for side in size]
    return st.tuples(*spans).map(lambda s: (s[0][0], s[1][0], max(s[0][0] + 1, s[0][1]), max(s[1][0] + 1, s[1][1])))


@pytest.mark.parametrize("overlap", [0, 1, 16, 64, 128])
def test_weights_are_a_ramp_that_is_never_zero(overlap: int) -> None:
    ramp, outer = window(overlap), 3 * overlap // 8
    assert ramp.shape == (TILE,) and ramp.min() >= 1
    assert (ramp[:outer] == 1).all(), "the outer three eighths count least"
    assert (ramp[overlap - outer : TILE // 2] == ramp.max()).all(), (
        "from the inner three eighths on all pixels weigh the same"
    )
    assert np.array_equal(ramp, ramp[::-1]) and (np.diff(ramp[: TILE // 2]) >= 0).all()
    assert 4 * 255 * int(ramp.max()) ** 2 < 2**31


@settings(max_examples=25, deadline=None)
@given(sizes, overlaps, st.integers(0, 255), st.data())
def test_a_constant_map_stays_constant(size: tuple[int, int], overlap: int, value: int, data: st.DataObject) -> None:
    grid, box = TileGrid(size, overlap), data.draw(boxes(size))
    tiles = {key: np.full((2, TILE, TILE), value, np.uint8) for key in some_tiles(grid, 0, 1)}
    out = blend(box, grid, tiles, 2)
    assert out.dtype == np.uint8 and out.shape == (2, box[3] - box[1], box[2] - box[0]) and (out == value).all()


@settings(max_examples=25, deadline=None)
@given(sizes, overlaps, st.integers(0, 1000), st.data())
def test_a_box_is_a_crop_of_the_whole(size: tuple[int, int], overlap: int, seed: int, data: st.DataObject) -> None:
    grid, box = TileGrid(size, overlap), data.draw(boxes(size))
    tiles = some_tiles(grid, seed)
    x0, y0, x1, y1 = box
    near = {key: maps for key, maps in tiles.items() if not is_empty(intersect(grid.box(*key), box))}
    whole = blend((0, 0, *size), grid, tiles, 2)
    assert np.array_equal(blend(box, grid, near, 2), whole[:, y0:y1, x0:x1])


@settings(max_examples=10, deadline=None)
@given(sizes, overlaps, st.randoms(use_true_random=False))
def test_the_order_of_tiles_does_not_matter(size: tuple[int, int], overlap: int, random: st.randoms) -> None:  # type: ignore[valid-type]
    grid = TileGrid(size, overlap)
    tiles = some_tiles(grid, 3)
    shuffled = list(tiles)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    box = 0, 0, *size
    assert np.array_equal(blend(box, grid, tiles, 2), blend(box, grid, {key: tiles[key] for key in shuffled}, 2))


@settings(max_examples=15, deadline=None)
@given(sizes, overlaps, st.integers(0, 1000))
def test_blending_is_the_weighted_mean_rounded_half_up(size: tuple[int, int], overlap: int, seed: int) -> None:
    grid = TileGrid(size, overlap)
    tiles = some_tiles(grid, seed, 0.7)
    wide = (grid.counts[1] * TILE, grid.counts[0] * TILE)
    total, weights = np.zeros((2, *wide), np.int64), np.zeros(wide, np.int64)
    both = np.outer(window(overlap), window(overlap))
    for key, maps in tiles.items():
        x0, y0, x1, y1 = grid.box(*key)
        total[:, y0:y1, x0:x1] += maps.astype(np.int64) * both
        weights[y0:y1, x0:x1] += both
    expected = np.where(weights > 0, (2 * total + weights) // np.maximum(2 * weights, 1), 0)
    assert np.array_equal(blend((0, 0, *size), grid, tiles, 2), expected[:, : size[1], : size[0]])


def test_missing_tiles_leave_the_others_alone_and_nothing_is_zero() -> None:
    grid = TileGrid((640, 256), 64)
    tiles = some_tiles(grid, 0, 1)
    alone = blend((0, 0, 640, 256), grid, {(1, 0): tiles[1, 0]}, 2)
    assert np.array_equal(alone[:, :, 192:448], tiles[1, 0])
    assert not alone[:, :, :192].any() and not alone[:, :, 448:].any()
    assert not blend((0, 0, 640, 256), grid, {}, 2).any()


def test_a_box_may_stick_out_of_the_slide() -> None:
    grid = TileGrid((300, 300), 64)
    tiles = some_tiles(grid, 1, 1)
    out = blend((-10, -20, 330, 310), grid, tiles, 2)
    assert not out[:, :20].any() and not out[:, :, :10].any()
    assert np.array_equal(out[:, 20:320, 10:310], blend((0, 0, 300, 300), grid, tiles, 2))
