"""Nuclei as points: pairs, F_d and F_c agree with counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny import disc_labels
from wsipipe.evaluate.metrics import Counts, count, detections, f_detection, f_type, image_means, summarise_detections

NAMES = ("a", "b")


def test_pairs_by_type_and_what_is_left_over() -> None:
    truth = disc_labels(80, (10, 10, 4), (30, 10, 4), (50, 10, 4), (10, 40, 4), (70, 70, 4))
    found = disc_labels(80, (12, 10, 4), (30, 12, 4), (50, 10, 4), (10, 58, 4))
    kinds = {1: "a", 2: "a", 3: "b", 4: "b", 5: "x"}, {1: "a", 2: "b", 3: "b", 4: "a"}
    table = detections(truth, kinds[0], found, kinds[1], NAMES, 0.5)
    #       as a, b, other, missed
    assert table.tolist() == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]]
    assert f_detection(table) == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    assert f_type(table, 0) == pytest.approx(2 / (2 + 2 * 0 + 2 * 1 + 1 + 0))
    assert f_type(table, 1) == pytest.approx(2 / (2 + 2 * 1 + 2 * 0 + 0 + 1))


def test_the_reach_is_in_micrometres() -> None:
    truth, found = disc_labels(60, (20, 20, 5)), disc_labels(60, (30, 20, 5))
    for mpp, right in ((0.25, 1), (0.31, 0)):
        assert detections(truth, {}, found, {}, (), mpp)[0, 0] == right


def test_an_assignment_over_all_distances_may_lose_a_pair() -> None:
    """Least total distance pairs the middle one with its far neighbour: HoVer-Net's own way, which scores lower."""
    truth, found = disc_labels(80, (10, 10, 1), (20, 10, 1)), disc_labels(80, (19, 10, 1), (29.6, 10, 1))
    near, far = (detections(truth, {}, found, {}, (), 1 / 3.2, way)[0, 0] for way in ("near", "far"))
    assert (near, far) == (2, 2)
    truth, found = disc_labels(120, (10, 10, 1), (20, 10, 1)), disc_labels(120, (20, 10, 1), (45, 10, 1))
    near, far = (detections(truth, {}, found, {}, (), 0.25, way)[0, 0] for way in ("near", "far"))
    assert near == 1 and far <= near


@pytest.mark.parametrize("seed", range(5))
def test_near_never_pairs_fewer_than_far(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = [disc_labels(90, *((*rng.uniform(5, 85, 2), 2.0) for _ in range(40))) for _ in range(2)]
    near, far = (detections(maps[0], {}, maps[1], {}, (), 0.4, way)[0, 0] for way in ("near", "far"))
    assert near >= far > 0


def test_nothing_gives_nothing_and_pixels_without_annotation_do_not_count() -> None:
    empty = np.zeros((30, 30), np.int32)
    assert detections(empty, {}, empty, {}, NAMES, 0.5).sum() == 0
    assert f_detection(detections(empty, {}, empty, {}, NAMES, 0.5)) == 0
    unknown = np.full((30, 30), -1, np.int32)
    assert detections(unknown, {}, disc_labels(30, (15, 15, 5)), {}, NAMES, 0.5).sum() == 0


def test_summaries_are_pooled_and_have_intervals() -> None:
    one, two = np.array([[3, 0, 0], [0, 0, 0], [1, 0, 0]]), np.array([[1, 0, 2], [0, 0, 0], [0, 0, 0]])
    summary = summarise_detections({"near": [one, two]}, ("a",), resamples=50)
    pooled = one + two
    assert summary.f_d["near"].value == pytest.approx(float(f_detection(pooled))) == pytest.approx(8 / 11)
    assert summary.f_c["a"]["near"].low <= summary.f_c["a"]["near"].value <= summary.f_c["a"]["near"].high


def test_pannuke_means_leave_out_images_without_nuclei() -> None:
    labels, empty = disc_labels(40, (12, 12, 5), (28, 28, 5)), np.zeros((40, 40), np.int32)
    right, half, nothing = (
        count(truth, found, tolerance=None)
        for truth, found in ((labels, labels), (labels, np.where(labels == 1, 1, 0).astype(np.int32)), (empty, empty))
    )
    types: list[dict[str, Counts]] = [{"a": right, "b": nothing}, {"a": half, "b": half}, {"a": nothing, "b": nothing}]
    means = image_means([right, half, nothing], types, resamples=20)
    halved = 1 / (1 + 0.5)
    assert means["bPQ"].value == pytest.approx((1 + halved) / 2)
    assert means["mPQ"].value == pytest.approx((1 + halved) / 2)
    assert image_means([nothing], resamples=5)["bPQ"].value == 0
