"""Targets say what the instance map says."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.tiny import disc_labels
from wsipipe.models.heads import DIRECTIONS
from wsipipe.train.targets import centre_map, class_map, directional_maps, whole_weight


def blobs(seed: int, side: int = 40) -> NDArray[np.int32]:
    """Return an instance map of overlapping discs, with gaps in its numbers."""
    rng = np.random.default_rng(seed)
    discs = [(*rng.uniform(0, side, 2), rng.uniform(1, 8)) for _ in range(rng.integers(0, 12))]
    return disc_labels(side, *discs) * 3


def naive_classes(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    out = np.zeros(labels.shape, np.uint8)
    for y, x in np.ndindex(*labels.shape):
        around = labels[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        out[y, x] = 2 if len(set(around[around > 0].tolist())) > 1 else labels[y, x] > 0
    return out


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_boundary_is_where_two_nuclei_are_within_a_pixel(seed: int) -> None:
    labels = blobs(seed)
    assert np.array_equal(class_map(labels), naive_classes(labels))


def test_a_gap_of_one_pixel_is_boundary_and_one_of_two_is_not() -> None:
    labels = np.zeros((5, 20), np.int32)
    labels[1:4, 2:5], labels[1:4, 6:9], labels[1:4, 11:14] = 1, 2, 3
    assert (class_map(labels)[2] == [0, 0, 1, 1, 1, 2, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]).all()


def test_a_lone_nucleus_has_no_boundary_even_at_the_edge() -> None:
    labels = disc_labels(20, (1, 1, 6))
    assert np.array_equal(class_map(labels), (labels > 0).astype(np.uint8))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_directions_run_from_minus_one_to_one_through_the_centroid(seed: int) -> None:
    labels = blobs(seed)
    maps = directional_maps(labels)
    assert maps.shape == (4, *labels.shape) and maps.dtype == np.float32
    assert not maps[:, labels == 0].any() and np.abs(maps).max(initial=0) <= 1
    for k, (ux, uy) in enumerate(DIRECTIONS):
        for label in np.unique(labels[labels > 0]):
            y, x = np.nonzero(labels == label)
            along = (x - x.mean()) * ux + (y - y.mean()) * uy
            value = maps[k, y, x]
            order = np.argsort(along, kind="stable")
            assert (np.diff(value[order]) >= -1e-6).all()
            assert ((value > 1e-6) <= (along > 0)).all() and ((value < -1e-6) <= (along < 0)).all()
            if along.max() >= 0.5:
                assert np.isclose(value.max(), 1) and (along.min() > -0.5 or np.isclose(value.min(), -1))


def test_nothing_annotated_gives_nothing() -> None:
    labels = np.zeros((7, 9), np.int32)
    assert not class_map(labels).any() and not directional_maps(labels).any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_centre_map_peaks_once_a_nucleus_and_vanishes_where_nuclei_touch(seed: int) -> None:
    labels = blobs(seed)
    centres, classes = centre_map(labels), class_map(labels)
    assert centres.dtype == np.float32 and centres.min() >= 0 and centres.max() <= 1 + 1e-6
    assert not centres[labels == 0].any() and not centres[classes == 2].any()
    for k in np.unique(labels[classes == 1]):
        assert centres[labels == k].max() > 0.99


def test_the_centre_of_a_disc_is_its_middle() -> None:
    centres = centre_map(disc_labels(41, (20, 20, 12)))
    assert np.unravel_index(centres.argmax(), centres.shape) == (20, 20)
    assert 0.4 < centres[20, 26] < 0.6 and centres[20, 31] < 0.2


def test_cut_nuclei_and_unknown_pixels_weigh_nothing_and_small_nuclei_more() -> None:
    labels = disc_labels(60, (2, 30, 6), (20, 30, 3), (40, 30, 10))
    labels[:, 52:] = -1  # the large disc ends two pixels before it
    weight = whole_weight(labels)
    assert not weight[labels == 1].any() and not weight[labels == -1].any()
    assert (weight[labels == 0] == 1).all()
    assert (weight[labels == 2] == 3).all() and (weight[labels == 3] == 0.5).all()
    labels[:, 50:] = -1
    assert not whole_weight(labels)[labels == 3].any()
