"""The public fake: what it adds to the protocol."""

from __future__ import annotations

import numpy as np
import pytest

from wsipipe.errors import SettingsError, TileReadError
from wsipipe.slide import ArraySlide

RGB = np.random.default_rng(0).integers(0, 255, (128, 256, 3), np.uint8)


def test_alpha_background_and_bounds() -> None:
    rgba = np.dstack([RGB, np.zeros(RGB.shape[:2], np.uint8)])
    rgba[:, 100:, 3] = 255
    slide = ArraySlide([rgba], 0.5, background=(10, 20, 30), bounds=(100, 0, 256, 128))
    pixels = slide.read_region(0, 0, 0, 300, 128)
    assert (pixels[:, :100] == (10, 20, 30)).all()
    assert np.array_equal(pixels[:, 100:256], RGB[:, 100:])
    assert (pixels[:, 256:] == (10, 20, 30)).all()
    assert slide.info.bounds == (100, 0, 256, 128)


def test_bad_areas_fail_at_every_level() -> None:
    slide = ArraySlide([RGB, RGB[::2, ::2].copy()], 0.5, bad=[(64, 64, 96, 96)])
    for level, x in ((0, 60), (1, 30)):
        with pytest.raises(TileReadError, match=f"cannot decode level {level}"):
            slide.read_region(level, x, x, 20, 20)
    assert slide.read_region(0, 96, 96, 20, 20).shape == (20, 20, 3)
    assert slide.read_region(0, 0, 0, 64, 128).shape == (128, 64, 3)


@pytest.mark.parametrize("levels", [[], [RGB[..., 0]], [RGB.astype(np.float32)], [RGB[..., :2]]])
def test_other_arrays_are_refused(levels: list[np.ndarray]) -> None:
    with pytest.raises(SettingsError, match="uint8 levels of shape"):
        ArraySlide(levels)
