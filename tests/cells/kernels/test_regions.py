"""Growth and filling against slow and plain ways of saying the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from wsipipe.cells.kernels import regions


def test_growth_is_an_octagon_of_the_stated_reach() -> None:
    labels = np.zeros((43, 43), np.int32)
    labels[21, 21] = 1
    regions.grow(labels, np.pad(np.ones((41, 41), np.uint8), 1), np.array([0, 10], np.int32))
    y, x = np.mgrid[-21:22, -21:22]
    assert np.array_equal(labels > 0, (np.maximum(abs(x), abs(y)) <= 10) & (abs(x) + abs(y) <= 14))


def test_growth_meets_halfway_and_ties_go_to_the_smaller_label() -> None:
    labels = np.zeros((3, 13), np.int32)
    labels[1, 2], labels[1, 8] = 2, 1
    mask = np.pad(np.ones((1, 11), np.uint8), 1)
    regions.grow(labels, mask, np.array([0, 9, 2], np.int32))
    assert labels[1].tolist() == [0, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("seed", range(8))
def test_fill_is_scipys_hole_filling(seed: int) -> None:
    mask = ndimage.label(np.random.default_rng(seed).random((30, 30)) < 0.63)[0] == 1
    labels = np.pad(mask.astype(np.int32), 1)
    filled = ndimage.binary_fill_holes(mask, structure=np.ones((3, 3)))
    labels[1:-1, 1:-1][filled & ~mask & (np.arange(30) % 2 == 0)] = 2  # what is enclosed vanishes
    regions.fill(labels, regions.boxes(labels, 2))
    assert np.array_equal(labels[1:-1, 1:-1] == 1, filled) and not (labels == 2).any()


def test_renumber_follows_first_pixels() -> None:
    labels = np.array([[0, 3, 3], [5, 0, 1], [5, 3, 1]], np.int32)
    assert regions.renumber(labels, 6).tolist() == [0, 3, 5, 1]
    assert labels.tolist() == [[0, 1, 1], [2, 0, 3], [2, 1, 3]]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("box", [(11, 8, 31, 20), (1, 1, 41, 20), (20, 15, 21, 16), (1, 1, 41, 31)])
def test_what_is_not_joined_to_the_box_is_cleared_with_its_labels(seed: int, box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    mask = np.pad((np.random.default_rng(seed).random((30, 40)) < 0.55).astype(np.uint8), 1)
    parts, _ = ndimage.label(mask)
    labels = parts.astype(np.int32)
    inside = np.zeros(mask.shape, bool)
    inside[y0:y1, x0:x1] = True
    expected = mask.astype(bool) & (np.isin(parts, parts[inside]) | inside)
    regions.keep_joined(mask, labels, x0, y0, x1, y1)
    assert np.array_equal(mask, expected) and np.array_equal(labels, parts * expected)
