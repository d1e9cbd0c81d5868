"""Thumbnails are area means, however they are cut into strips."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.slide.helpers import reduced
from wsipipe.errors import MissingMpp
from wsipipe.slide import ArraySlide, overview, thumbnail

RGB = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)


def test_whole_factors_are_plain_means() -> None:
    rgb, scale = thumbnail(ArraySlide([RGB], 0.5), 4.0)
    assert scale == (8.0, 8.0)
    assert np.abs(rgb - reduced(RGB, 8)).max() <= 0.5


def test_fractions_keep_the_mean_and_the_place() -> None:
    ramp = np.broadcast_to(np.linspace(0, 250, 640)[None, :, None], (480, 640, 3)).astype(np.uint8)
    rgb, scale = thumbnail(ArraySlide([ramp], (0.5, 0.25)), 1.7)
    assert scale == (3.4, 6.8)
    assert rgb.shape == (-(-480 * 10 // 68), -(-640 * 10 // 34), 3)
    centres = np.minimum((np.arange(rgb.shape[1]) + 0.5) * 3.4, 639)
    assert np.abs(rgb[3, :-1, 0] - ramp[0, centres.astype(int), 0][:-1].astype(float)).max() <= 2


@pytest.mark.parametrize("strip", [1, 5_000, 10**9])
def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch, strip: int) -> None:
    expected, _ = thumbnail(ArraySlide([RGB], 0.5), 3.3)
    monkeypatch.setattr(overview, "STRIP_PIXELS", strip)
    rgb, _ = thumbnail(ArraySlide([RGB], 0.5), 3.3)
    assert np.abs(rgb.astype(int) - expected).max() <= 1


def test_the_coarsest_level_that_is_fine_enough() -> None:
    levels = [np.full((480 // f, 640 // f, 3), 10 * f, np.uint8) for f in (1, 2, 4)]
    slide = ArraySlide(levels, 0.5)
    for mpp, level in ((0.1, 1), (0.5, 1), (0.99, 1), (1.0, 2), (1.9, 2), (2.0, 4), (9.0, 4)):
        assert (thumbnail(slide, mpp)[0] == 10 * level).all()


def test_never_finer_than_level_0() -> None:
    rgb, scale = thumbnail(ArraySlide([RGB], 0.5), 0.1)
    assert scale == (1.0, 1.0)
    assert np.array_equal(rgb, RGB)


def test_damage_is_left_blank() -> None:
    dark: NDArray[np.uint8] = np.full((1200, 1600, 3), 40, np.uint8)
    rgb, _ = thumbnail(ArraySlide([dark], 0.5, bad=[(700, 500, 710, 510)]), 0.5)
    assert (rgb[500:510, 700:710] == 255).all()
    assert (rgb == 40).mean() > 0.9


def test_needs_a_resolution() -> None:
    with pytest.raises(MissingMpp, match="--mpp"):
        thumbnail(ArraySlide([RGB]), 8.0)
