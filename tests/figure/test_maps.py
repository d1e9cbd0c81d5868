"""Clusters and similarity of dense features: against the plain computation on the map that is never made."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.cluster.vq import vq

from wsipipe.figure import maps
from wsipipe.figure.maps import View, clusters, similarity, standardised

Floats = NDArray[np.float32]


def view(seed: int = 0) -> View:
    """Return three levels of random features, none of them as large as the others."""
    rng = np.random.default_rng(seed)
    sizes = (4, 5, 3.0), (8, 3, 1.0), (16, 70, 0.1)
    return tuple((rng.normal(1, scale, (side, side, width))).astype(np.float32) for side, width, scale in sizes)


def whole(view: View) -> NDArray[np.float64]:
    """Return the one map that *view* stands for, (h, w, all channels)."""
    height, width = view[-1].shape[:2]
    levels = [cv2.resize(level, (width, height), interpolation=cv2.INTER_LINEAR) for level in view]
    return np.concatenate(levels, axis=-1).astype(np.float64)


def two_halves(left: float = 0.0, right: float = 4.0, side: int = 16) -> tuple[View, NDArray[np.uint8]]:
    """Return features that differ between the halves of a picture, whose left half is light."""
    rng = np.random.default_rng(1)
    features = rng.normal(0, 0.1, (side, side, 3)).astype(np.float32)
    features[:, : side // 2] += left
    features[:, side // 2 :] += right
    picture = np.full((256, 256, 3), 60, np.uint8)
    picture[:, :128] = 220
    return (features,), picture


def test_standardised_features_have_no_mean_and_unit_spread_over_all_regions() -> None:
    views = standardised([view(0), view(1)])
    for level in zip(*views):
        flat = np.concatenate([part.reshape(-1, part.shape[-1]) for part in level])
        assert flat.mean(axis=0) == pytest.approx(0, abs=1e-5) and flat.std(axis=0) == pytest.approx(1, abs=1e-4)


def test_a_constant_channel_counts_for_nothing() -> None:
    features = np.full((4, 4, 2), 7, np.float32)
    features[..., 1] = np.arange(16).reshape(4, 4)
    ((scaled,),) = standardised([(features,)])
    assert (scaled[..., 0] == 0).all() and scaled[..., 1].std() == pytest.approx(1, abs=1e-4)


def test_features_at_a_point_are_those_of_the_enlarged_map() -> None:
    found, large = view(), whole(view())
    rows, columns = np.array([0.5, 3.5, 15.5, 8.5]), np.array([0.5, 12.5, 15.5, 0.5])
    got = np.concatenate([maps._at(level, rows, columns, (16, 16)) for level in found], axis=1)
    assert got == pytest.approx(large[rows.astype(int), columns.astype(int)], abs=1e-5)


def test_the_nearest_centre_is_that_of_the_enlarged_map() -> None:
    found, centres = view(), np.random.default_rng(2).normal(1, 1, (4, 78))
    expected, _ = vq(whole(found).reshape(-1, 78), centres)
    assert (maps._nearest(found, centres) == expected.reshape(16, 16)).all()


def test_similarity_is_the_cosine_of_the_enlarged_map() -> None:
    found, large = view(), whole(view())
    there = large[5, 9]
    expected = (large @ there) / np.linalg.norm(large, axis=-1) / np.linalg.norm(there)
    got = similarity(found, (9.5 / 16, 5.5 / 16))
    assert got == pytest.approx(expected, abs=1e-5) and got[5, 9] == pytest.approx(1, abs=1e-6)
    assert got.dtype == np.float32 and np.unravel_index(got.argmax(), got.shape) == (5, 9)


def test_similarity_to_nothing_is_zero() -> None:
    assert (similarity((np.zeros((4, 4, 3), np.float32),), (0.5, 0.5)) == 0).all()


@pytest.mark.parametrize("swapped", [False, True])
def test_clusters_are_numbered_from_dark_to_light(swapped: bool) -> None:
    found, picture = two_halves(4.0, 0.0) if swapped else two_halves()
    (labels,) = clusters([found], [picture], 2, seed=3)
    assert (labels[:, 8:] == 0).all() and (labels[:, :8] == 1).all()


def test_clusters_of_several_regions_mean_the_same() -> None:
    found, picture = two_halves()
    mirrored = (np.ascontiguousarray(found[0][:, ::-1]),)
    a, b = clusters([found, mirrored], [picture, np.ascontiguousarray(picture[:, ::-1])], 2, seed=0)
    assert (a == b[:, ::-1]).all()


def test_the_same_seed_gives_the_same_clusters_and_all_of_them_are_used() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    runs = [clusters(standardised([view()]), [picture], 5, seed=11)[0] for _ in range(2)]
    assert (runs[0] == runs[1]).all() and set(np.unique(runs[0])) == set(range(5))


def test_places_that_are_all_alike_make_one_cluster() -> None:
    picture = np.full((256, 256, 3), 240, np.uint8)
    (labels,) = clusters(standardised([(np.ones((8, 8, 4), np.float32),)]), [picture], 4, seed=0)
    assert len(np.unique(labels)) == 1 and labels.max() < 4
