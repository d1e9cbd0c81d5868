"""What every reader must do, asked of each of them."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.slide.helpers import Case, reduced
from wsipipe.errors import SettingsError, SlideError
from wsipipe.slide import Slide, SlideInfo

WHITE = 255


def whole(slide: Slide, level: int = 0) -> NDArray[np.uint8]:
    return slide.read_region(level, 0, 0, *slide.info.levels[level].size)


def test_is_a_slide(case: Case) -> None:
    with case.open() as slide:
        assert isinstance(slide, Slide)
        assert isinstance(slide.info, SlideInfo)
        assert slide.info.scenes[slide.info.scene]
        assert slide.info.background == (WHITE,) * 3


def test_levels(case: Case) -> None:
    with case.open() as slide:
        levels = slide.info.levels
    assert tuple(level.size for level in levels) == case.level_sizes
    assert [level.downsample for level in levels] == [(4.0**n, 4.0**n) for n in range(len(levels))]


def test_resolution_and_its_source(case: Case) -> None:
    with case.open() as slide:
        assert slide.info.mpp == (pytest.approx(case.mpp), pytest.approx(case.mpp))
        assert slide.info.mpp_source is case.source
        assert slide.info.bounds is None


def test_pixels_of_level_0(case: Case) -> None:
    with case.open() as slide:
        pixels = whole(slide)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, case.pixels)


@pytest.mark.parametrize(("x", "y", "width", "height"), [(0, 0, 1, 1), (251, 255, 10, 3), (700, 300, 517, 389)])
def test_inner_regions(case: Case, x: int, y: int, width: int, height: int) -> None:
    with case.open() as slide:
        assert np.array_equal(slide.read_region(0, x, y, width, height), case.pixels[y : y + height, x : x + width])


@pytest.mark.parametrize("corner", ["top left", "bottom right"])
def test_regions_across_the_edge(case: Case, corner: str) -> None:
    with case.open() as slide:
        width, height = slide.info.size
        x, y = (-30, -20) if corner == "top left" else (width - 70, height - 60)
        region = slide.read_region(0, x, y, 100, 80)
    expected = np.full((80, 100, 3), WHITE, np.uint8)
    if corner == "top left":
        expected[20:, 30:] = case.pixels[:60, :70]
    else:
        expected[:60, :70] = case.pixels[-60:, -70:]
    assert np.array_equal(region, expected)


def test_regions_outside_and_larger_than_the_slide(case: Case) -> None:
    with case.open() as slide:
        width, height = slide.info.size
        assert (slide.read_region(0, width + 5, -200, 9, 7) == WHITE).all()
        assert slide.read_region(0, 3, 3, 0, 5).shape == (5, 0, 3)
        around = slide.read_region(0, -2, -3, width + 4, height + 6)
    assert np.array_equal(around[3:-3, 2:-2], case.pixels)
    assert (around[:3] == WHITE).all() and (around[:, -2:] == WHITE).all()


def test_nonsense_is_refused(case: Case) -> None:
    with case.open() as slide:
        with pytest.raises(SettingsError, match=r"no level 9; expected 0 to"):
            slide.read_region(9, 0, 0, 1, 1)
        with pytest.raises(SettingsError, match=r"sizes of 0 or more"):
            slide.read_region(0, 0, 0, -1, 1)


def test_level_n_is_the_area_mean_of_level_0(case: Case) -> None:
    with case.open() as slide:
        for level in range(1, len(slide.info.levels)):
            expected = reduced(case.pixels, 4**level)
            assert np.abs(whole(slide, level) - expected).max() <= 0.51
            part = slide.read_region(level, 37, 41, 111, 83)
            assert np.abs(part - expected[41:124, 37:148]).max() <= 0.51


def test_pickles_and_reopens(case: Case) -> None:
    with case.open() as slide:
        copy = pickle.loads(pickle.dumps(slide))
        expected = slide.read_region(0, 300, 200, 64, 64)
    with copy:
        assert copy.info == slide.info
        assert np.array_equal(copy.read_region(0, 300, 200, 64, 64), expected)
    if case.file:
        assert len(pickle.dumps(slide)) < 2000


@pytest.mark.parametrize("shared", [True, False], ids=["one object", "an object each"])
def test_threads(case: Case, shared: bool) -> None:
    boxes = [(x, y) for y in range(0, 900, 150) for x in range(0, 1400, 200)]
    with case.open() as slide, ThreadPoolExecutor(4) as pool:

        def read(box: tuple[int, int]) -> bool:
            x, y = box
            if shared:
                region = slide.read_region(0, x, y, 130, 110)
            else:
                with case.open() as own:
                    region = own.read_region(0, x, y, 130, 110)
            return np.array_equal(region, case.pixels[y : y + 110, x : x + 130])

        assert all(pool.map(read, boxes if shared else boxes[:8]))


def test_closed_means_closed(case: Case) -> None:
    slide = case.open()
    slide.close()
    slide.close()
    with pytest.raises(SlideError, match="was closed"):
        slide.read_region(0, 0, 0, 8, 8)
