"""HoVer-Net's outputs to nuclei: touching ones are parted where the distances jump."""

from __future__ import annotations

import numpy as np

from wsipipe.plugins.hovernet import instances


def outputs(
    discs: list[tuple[int, int, int]], shape: tuple[int, int] = (80, 120)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, and what an ideal network says of the discs (x, y, radius)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels, distances = np.zeros(shape, np.int32), np.zeros((2, *shape), np.float32)
    nearest = np.argmin([np.hypot(x - cx, y - cy) - r for cx, cy, r in discs], axis=0)
    for k, (cx, cy, radius) in enumerate(discs):
        inside = (np.hypot(x - cx, y - cy) < radius) & (nearest == k)
        labels[inside] = k + 1
        distances[:, inside] = np.stack([x - cx, y - cy])[:, inside] / radius
    return labels, (labels > 0).astype(np.float32), distances


def test_parts_touching_nuclei_where_they_touch() -> None:
    truth, nucleus, distances = outputs([(30, 40, 14), (54, 40, 12), (54, 60, 11), (95, 30, 10)])
    found = instances(nucleus, distances)
    assert set(np.unique(found)) - {0} and len(np.unique(found)) == 5
    for k in range(1, 5):
        same = found == np.bincount(found[truth == k]).argmax()
        assert (same & (truth == k)).sum() / (same | (truth == k)).sum() > 0.9
    assert ((found > 0) == (truth > 0)).all()


def test_moving_the_picture_moves_the_nuclei() -> None:
    discs = [(30, 40, 14), (54, 40, 12), (54, 60, 11), (95, 30, 10)]
    _, *still = outputs(discs)
    _, *moved = outputs([(x + 7, y + 5, r) for x, y, r in discs])
    a, b = instances(*still)[12:68, 12:108], instances(*moved)[17:73, 19:115]
    assert ((a > 0) == (b > 0)).all()
    assert len(set(zip(a.ravel(), b.ravel()))) == len(set(a.ravel())) == len(set(b.ravel()))


def test_a_nucleus_without_a_marker_is_one_all_the_same() -> None:
    nucleus, distances = np.zeros((40, 40), np.float32), np.zeros((2, 40, 40), np.float32)
    nucleus[10:13, 10:13] = 1  # smaller than any marker
    found = instances(nucleus, distances)
    assert (found > 0).sum() == 9 and len(np.unique(found)) == 2
    assert not instances(nucleus * 0, distances).any()
