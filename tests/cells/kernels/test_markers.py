"""Depth, components and peaks against slow and plain ways of saying the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from wsipipe.cells.kernels import markers
from wsipipe.cells.rules import MAX_DEPTH_PX


@pytest.mark.parametrize("seed", range(5))
def test_depth_is_the_chamfer_distance(seed: int) -> None:
    inside = (np.random.default_rng(seed).random((40, 50)) < 0.97).astype(np.uint8)
    y, x = np.mgrid[-3:4, -3:4]
    a, b = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    cost = np.where(b * 2 <= a, 5 * a + b, 4 * a + 3 * b)  # 5-7-11 in closed form: 11 a step of (2, 1), 7 of (1, 1)
    blocked = np.pad(inside, 3, constant_values=1) == 0
    expected = np.full(inside.shape, 15)
    for v, u in np.ndindex(7, 7):
        expected = np.minimum(expected, np.where(blocked[v : v + 40, u : u + 50], cost[v, u], 15))
    assert np.array_equal(markers.depth(inside, 15), expected)


def test_depth_fits_its_type() -> None:
    assert MAX_DEPTH_PX * markers.DEPTH_UNIT <= 255
    assert markers.depth(np.ones((3, 300), np.uint8), 255).min() == 255


@pytest.mark.parametrize("extent", [3, 8, 1000])
def test_components_are_those_of_scipy_in_raster_order(extent: int) -> None:
    mask = np.pad((np.random.default_rng(extent).random((60, 70)) < 0.5).astype(np.uint8), 1)
    labels, free = np.zeros(mask.shape, np.int32), mask.copy()
    count = markers.components(free, np.zeros_like(mask), labels, extent, 0)
    expected = ndimage.label(mask)[0]
    kept = [i + 1 for i, s in enumerate(ndimage.find_objects(expected)) if max(p.stop - p.start for p in s) <= extent]
    assert count == len(kept)
    for number, k in enumerate(kept, 1):
        assert np.array_equal(labels == number, expected == k)
    assert np.array_equal(free, np.where((mask > 0) & (labels == 0), 2, 0))


def test_peaks_keep_their_distance_and_move_with_the_frame() -> None:
    energy = np.full((60, 60), 7, np.uint8)
    allowed = np.ones_like(energy)
    found = np.zeros((62, 62), np.int32)
    count = markers.peaks(energy, energy, allowed, 100, 200, 5, 0, found)
    y, x = np.nonzero(found)
    apart = np.maximum(abs(x[:, None] - x), abs(y[:, None] - y)) + 1000 * np.eye(count, dtype=int)
    assert count > 10 and apart.min() > 5
    part = np.zeros((42, 42), np.int32)
    markers.peaks(energy[:40, :40], energy[:40, :40], allowed[:40, :40], 110, 210, 5, 0, part)
    assert np.array_equal(part[6:-6, 6:-6] > 0, found[16:46, 16:46] > 0)
