"""Regions: cut with what is around them, taken apart into tiles, put together again."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wsipipe.figure.regions import MARGIN, STEP, Region, corners, cut, joined, together
from wsipipe.raster.tiling import TILE


def picture(width: int = 700, height: int = 600) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("side", [256, 512])
def test_a_region_is_cut_around_its_centre(side: int) -> None:
    whole = picture(1100, 1000)
    region = Region("x", cut(whole, (550, 500), side))
    half = side // 2
    assert region.side == side
    assert (region.pixels == whole[500 - half : 500 + half, 550 - half : 550 + half]).all()
    assert (
        region.window[:MARGIN, MARGIN:-MARGIN] == whole[500 - half - MARGIN : 500 - half, 550 - half : 550 + half]
    ).all()


def test_beyond_the_edge_a_picture_is_mirrored() -> None:
    whole = picture(256, 256)
    assert (cut(whole, (128, 128), 256) == np.pad(whole, ((MARGIN,) * 2, (MARGIN,) * 2, (0, 0)), "reflect")).all()


@pytest.mark.parametrize(("side", "step", "count"), [(256, STEP, 1), (512, STEP, 9), (768, TILE, 9), (1024, STEP, 49)])
def test_tiles_cover_a_region(side: int, step: int, count: int) -> None:
    region = Region("x", cut(picture(side, side), (side // 2, side // 2), side))
    tiles, windows = region.tiles(step)
    assert tiles.shape == (count, TILE, TILE, 3) and windows.shape == (count, 512, 512, 3)
    assert (windows[:, MARGIN:-MARGIN, MARGIN:-MARGIN] == tiles).all() and len(corners(side, step)) == count


@pytest.mark.parametrize("step", [STEP, TILE])
@pytest.mark.parametrize("unit", [1, 4, 16])
def test_maps_of_tiles_are_put_back_where_they_were(step: int, unit: int) -> None:
    region = Region("x", cut(picture(768, 768), (384, 384), 768))
    tiles, _ = region.tiles(step)
    maps = tiles[:, ::unit, ::unit]
    assert (together(maps, 768, step) == region.pixels[::unit, ::unit]).all()


def test_of_tiles_that_overlap_each_gives_its_middle() -> None:
    numbers = np.repeat(np.arange(9), 16 * 16).reshape(9, 16, 16, 1)
    found = together(numbers, 512, STEP)[..., 0]
    assert found.shape == (32, 32)
    assert (found[0, [0, 11, 12, 19, 20, 31]] == [0, 0, 1, 1, 2, 2]).all()
    assert (found[[0, 11, 12, 19, 20, 31], 0] == [0, 0, 3, 3, 6, 6]).all()


def test_levels_keep_their_resolution() -> None:
    found = joined({side: np.zeros((9, side, side, 2), np.float32) for side in (16, 256)}, 512)
    assert {side: m.shape for side, m in found.items()} == {16: (32, 32, 2), 256: (512, 512, 2)}


def test_points_are_placed_by_corner_and_scale() -> None:
    region = Region("x", cut(picture(), (300, 300), 256), (1000.0, 2000.0), (2.0, 2.0))
    assert region.place((1000, 2000)) == (0, 0) and region.place((1256, 2384)) == (0.5, 0.75)
