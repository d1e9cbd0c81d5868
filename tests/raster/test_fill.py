"""Painting shapes that lie partly or wholly outside the picture."""

from __future__ import annotations

import numpy as np
import pytest

from wsipipe.raster.fill import fill

SQUARE = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], np.float64)


@pytest.mark.parametrize("shift", [(-5, 1), (-4.2, 1), (-2, 1), (1, -9), (8, 2), (12, 2), (2, 9), (-5, -5)])
def test_what_lies_outside_is_cut_off(shift: tuple[float, float]) -> None:
    labels = np.zeros((10, 10), np.int32)
    fill(labels, [[SQUARE + shift]], [7])
    y, x = np.mgrid[:10, :10] + 0.5
    inside = (x >= shift[0]) & (x < shift[0] + 4) & (y >= shift[1]) & (y < shift[1] + 4)
    np.testing.assert_array_equal(labels, np.where(inside, 7, 0))
