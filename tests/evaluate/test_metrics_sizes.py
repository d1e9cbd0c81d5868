"""Nuclei by size: each counts in the class of its own diameter, and counts of images add up."""

from __future__ import annotations

import numpy as np

from wsipipe.evaluate.metrics import count_sizes, size_classes
from wsipipe.evaluate.metrics.sizes import EDGES_UM


def test_classes_are_named_by_their_edges() -> None:
    assert size_classes() == ("< 4", "4–5.5", "5.5–7", "7–9", "9–12", "≥ 12")
    assert len(size_classes()) == len(EDGES_UM) - 1


def test_nuclei_count_in_the_class_of_their_own_size() -> None:
    truth, found = np.zeros((60, 60), np.int32), np.zeros((60, 60), np.int32)
    truth[2:10, 2:10] = 1  # 4.5 µm across
    truth[2:10, 20:28] = 2  # as large, missed
    truth[30:50, 30:50] = 3  # 11.3 µm
    found[2:10, 2:9] = 7  # 4.2 µm, matches with IoU 7/8
    found[30:50, 30:45] = 8  # 9.8 µm, IoU 3/4
    found[53:58, 3:8] = 9  # 2.8 µm, false
    sizes = count_sizes(truth, found, 0.5)
    assert sizes.truth.tolist() == [0, 2, 0, 0, 1, 0] and sizes.found.tolist() == [1, 1, 0, 0, 1, 0]
    assert sizes.matched.tolist() == [0, 1, 0, 0, 1, 0] and sizes.right.tolist() == [0, 1, 0, 0, 1, 0]
    np.testing.assert_array_equal(sizes.recall, [np.nan, 0.5, np.nan, np.nan, 1, np.nan])
    np.testing.assert_array_equal(sizes.precision, [0, 1, np.nan, np.nan, 1, np.nan])
    np.testing.assert_allclose(sizes.quality, [np.nan, 7 / 8, np.nan, np.nan, 3 / 4, np.nan])
    both = sizes + count_sizes(truth, found, 0.25)  # the same picture half as large: all one or two classes lower
    assert both.truth.tolist() == [2, 2, 1, 0, 1, 0]


def test_what_nobody_annotated_is_not_counted() -> None:
    truth, found = np.full((20, 20), -1, np.int32), np.zeros((20, 20), np.int32)
    truth[:, :10] = 0
    found[5:15, 12:18] = 1
    assert count_sizes(truth, found, 0.5).found.sum() == 0
