from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsipipe.errors import SettingsError
from wsipipe.raster.tiling import TILE, BlockGrid, TileGrid, blocks, pixels_read, select_tiles, tile_owners

quick = settings(max_examples=30, deadline=None)
sides = st.integers(1, 1500)
sizes = st.tuples(sides, sides)
overlaps = st.integers(0, 128)


@quick
@given(sizes, overlaps)
def test_tiles_cover_the_slide_with_as_few_as_possible(size: tuple[int, int], overlap: int) -> None:
    tiles = TileGrid(size, overlap)
    for count, side in zip(tiles.counts, size, strict=True):
        assert (count - 1) * tiles.stride + TILE >= side
        assert count == 1 or (count - 2) * tiles.stride + TILE < side
    assert tiles.box(0, 0) == (0, 0, TILE, TILE)
    assert tiles.boxes().shape == (*tiles.counts[::-1], 4)
    i, j = (n - 1 for n in tiles.counts)
    assert tuple(tiles.boxes()[j, i]) == tiles.box(i, j)


@quick
@given(sizes, overlaps, st.tuples(*[st.integers(-300, 1800)] * 4))
def test_tiles_over_a_box_are_those_that_overlap_it(
    size: tuple[int, int], overlap: int, box: tuple[int, int, int, int]
) -> None:
    tiles = TileGrid(size, overlap)
    x0, y0, x1, y1 = box
    b = tiles.boxes()
    expected = (b[..., 0] < x1) & (b[..., 2] > x0) & (b[..., 1] < y1) & (b[..., 3] > y0) & (x0 < x1) & (y0 < y1)
    i0, j0, i1, j1 = tiles.tiles_over(box)
    found = np.zeros_like(expected)
    found[j0:j1, i0:i1] = True
    assert np.array_equal(found, expected)


@quick
@given(sizes, st.integers(50, 700), st.tuples(st.integers(-900, 900), st.integers(-900, 900)))
def test_blocks_cover_every_pixel_once(size: tuple[int, int], block: int, shift: tuple[int, int]) -> None:
    owner = np.full(size[::-1], -1)
    for piece in blocks(size, block, shift):
        x0, y0, x1, y1 = piece.core
        assert 0 < x1 - x0 <= block and 0 < y1 - y0 <= block
        assert (owner[y0:y1, x0:x1] == -1).all()
        owner[y0:y1, x0:x1] = piece.index
    assert (owner >= 0).all()
    rng = np.random.default_rng(0)
    xy = np.stack([rng.integers(0, side, 50) for side in size], axis=1)
    assert np.array_equal(BlockGrid(size, block, shift).owner(xy), owner[xy[:, 1], xy[:, 0]])


@quick
@given(sizes, overlaps, st.integers(100, 700))
def test_each_tile_has_one_owner(size: tuple[int, int], overlap: int, block: int) -> None:
    tiles, grid = TileGrid(size, overlap), BlockGrid(size, block)
    cores = [piece.core for piece in grid.blocks()]
    for (x, y), owner in zip(tiles.centres().reshape(-1, 2), tile_owners(tiles, grid).ravel(), strict=True):
        holders = [n for n, (x0, y0, x1, y1) in enumerate(cores) if x0 <= x < x1 and y0 <= y < y1]
        assert holders == [owner]


@quick
@given(sizes, overlaps, st.integers(0, 300), st.data())
def test_selected_tiles_are_those_within_reach(
    size: tuple[int, int], overlap: int, reach: int, data: st.DataObject
) -> None:
    tiles = TileGrid(size, overlap)
    x, y = (data.draw(st.integers(0, side - 1)) for side in size)
    picture = np.zeros((size[1] + 700, size[0] + 700), bool)  # tissue is one pixel
    picture[y + 300, x + 300] = True

    def hits(boxes: np.ndarray) -> np.ndarray:
        shifted = np.clip(boxes + 300, 0, None)
        return np.array([picture[y0:y1, x0:x1].any() for x0, y0, x1, y1 in shifted])

    chosen = select_tiles(tiles, hits, reach)
    for j, i in np.ndindex(*chosen.shape):
        x0, y0, x1, y1 = tiles.cores()[j, i]
        assert chosen[j, i] == (x0 - reach <= x < x1 + reach and y0 - reach <= y < y1 + reach)
    assert select_tiles(tiles, None).all()


@quick
@given(sizes, overlaps)
def test_cores_share_out_the_slide_and_lie_deep_in_their_tiles(size: tuple[int, int], overlap: int) -> None:
    tiles = TileGrid(size, overlap)
    holders = np.zeros(size[::-1], int)
    for (x0, y0, x1, y1), box in zip(tiles.cores().reshape(-1, 4), tiles.boxes().reshape(-1, 4), strict=True):
        holders[y0:y1, x0:x1] += 1
        assert x0 < x1 and y0 < y1, "each tile is needed"
        for axis, at in enumerate((x0, y0, x1, y1)):
            side = size[axis % 2]
            assert at in (0, side) or abs(at - box[axis]) in (overlap // 2, overlap - overlap // 2)
    assert (holders == 1).all()


@quick
@given(sizes, overlaps, st.integers(0, 2**16))
def test_pixels_read_by_selected_tiles(size: tuple[int, int], overlap: int, seed: int) -> None:
    tiles = TileGrid(size, overlap)
    selected = np.random.default_rng(seed).random(tiles.counts[::-1]) < 0.3
    cell = 100
    expected = np.zeros([-(-side // cell) for side in size[::-1]], bool)
    for x0, y0, x1, y1 in tiles.boxes()[selected]:
        rows = (
            np.unique(np.pad(np.arange(size[1]), (0, TILE), mode="reflect" if size[1] > 1 else "edge")[y0:y1]) // cell
        )
        cols = (
            np.unique(np.pad(np.arange(size[0]), (0, TILE), mode="reflect" if size[0] > 1 else "edge")[x0:x1]) // cell
        )
        expected[np.ix_(np.unique(rows), np.unique(cols))] = True
    assert (pixels_read(tiles, selected, cell) >= expected).all()
    if min(size) >= TILE:
        assert np.array_equal(pixels_read(tiles, selected, cell), expected)


@pytest.mark.parametrize("overlap", [-1, 129])
def test_overlap_out_of_range(overlap: int) -> None:
    with pytest.raises(SettingsError, match=f"overlap is {overlap} px; expected 0 to 128 px"):
        TileGrid((1000, 1000), overlap)


def test_sizes_out_of_range() -> None:
    with pytest.raises(SettingsError, match="expected at least one pixel"):
        TileGrid((0, 10), 0)
    with pytest.raises(SettingsError, match="block is 0 px"):
        BlockGrid((10, 10), 0)
