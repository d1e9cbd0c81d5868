"""Scores agree with other people's code, with brute force, and with what they are said to be."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from skimage.segmentation import find_boundaries

from wsipipe.errors import DatasetError
from wsipipe.evaluate.metrics import (
    Counts,
    boundary,
    consecutive,
    count,
    count_types,
    mpq_plus,
    overlaps,
    pool,
    scores,
    stack,
    summarise,
)

Labels = NDArray[np.int32]
SAME_NAME = {"dice": "dice", "mDice": "mDice", "f1": "DQ", "precision": "object_precision", "recall": "object_recall",
             "sq": "SQ", "pq": "PQ", "aji": "AJI", "bf1": "BF1"}  # fmt: skip
small = hnp.arrays(np.int32, (6, 7), elements=st.integers(0, 4))


def discs(seed: int, shift: float = 0.0, side: int = 96, n: int = 25) -> Labels:
    """Discs at random places, later ones on top; *shift* moves each a little, drops some and adds others."""
    rng, noise = np.random.default_rng(seed), np.random.default_rng(seed + 1000)
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for k in range(1, n + 1):
        (cx, cy), r = rng.uniform(0, side, 2), rng.uniform(3, 9)
        dx, dy, keep = *noise.normal(0, shift, 2), noise.random()
        if shift == 0 or keep > 0.15:
            labels[np.hypot(x - cx - dx, y - cy - dy) < r] = k
    return labels


PAIRS = [(discs(s), discs(s, 1.5)) for s in range(5)] + [
    (discs(1), np.zeros((96, 96), np.int32)),
    (np.zeros((96, 96), np.int32), discs(2)),
    (np.zeros((96, 96), np.int32),) * 2,
    (discs(3), discs(3)),
    (discs(3) * 7, discs(4) * 3),
]


@pytest.fixture(scope="module")
def scorer(shared_data: Path) -> ModuleType:
    """Return the independent scorer beside the data."""
    path = shared_data.parent / "tools" / "score.py"
    if not path.is_file():
        pytest.skip(f"no scorer at {path}")
    spec = importlib.util.spec_from_file_location("independent_scorer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("tolerance", [0.0, 2.0, 3.5])
def test_agrees_with_an_independent_scorer(scorer: ModuleType, tolerance: float) -> None:
    theirs = [scorer.count(t.astype(np.int64), f.astype(np.int64), tolerance) for t, f in PAIRS]
    ours = [count(t, f, tolerance) for t, f in PAIRS]
    total = {k: sum(c[k] for c in theirs) for k in theirs[0]}
    for their, our in [*zip(theirs, ours, strict=True), (total, pool(ours))]:
        expected, got = scorer.scores(their), scores(our)
        for name, same in SAME_NAME.items():
            assert got[same] == pytest.approx(expected[name], abs=1e-9), name


@given(small, small)
@settings(max_examples=60, deadline=None)
def test_agrees_with_brute_force(truth: Labels, found: Labels) -> None:
    c = count(truth, found)
    nuclei_t = [set(np.flatnonzero(truth.ravel() == k)) for k in np.unique(truth) if k]
    nuclei_f = [set(np.flatnonzero(found.ravel() == k)) for k in np.unique(found) if k]
    iou = np.array([[len(a & b) / len(a | b) for b in nuclei_f] for a in nuclei_t], float)
    iou = iou.reshape(len(nuclei_t), len(nuclei_f))
    assert (c.truth, c.found, c.matched) == (len(nuclei_t), len(nuclei_f), (iou > 0.5).sum())
    assert c.matched_iou == pytest.approx(iou[iou > 0.5].sum(), abs=1e-12)
    both = either = 0
    used = set()
    for i, a in enumerate(nuclei_t):
        j = int(iou[i].argmax()) if iou.shape[1] else -1
        hit = j >= 0 and iou[i, j] > 0
        both += len(a & nuclei_f[j]) if hit else 0
        either += len(a | nuclei_f[j]) if hit else len(a)
        used |= {j} if hit else set()
    either += sum(len(b) for j, b in enumerate(nuclei_f) if j not in used)
    assert (c.aji_both, c.aji_either) == (both, either)


@given(small, small, st.sampled_from([0.0, 1.0, 1.5, 2.0]))
@settings(max_examples=60, deadline=None)
def test_boundaries(truth: Labels, found: Labels, tolerance: float) -> None:
    edges = [find_boundaries(m, connectivity=1, mode="inner") for m in (truth, found)]
    assert (boundary(truth) == edges[0]).all() and (boundary(found) == edges[1]).all()
    points = [np.argwhere(edge) for edge in edges]
    c = count(truth, found, tolerance)
    assert (c.truth_edge, c.found_edge) == (len(points[0]), len(points[1]))
    if len(points[0]) and len(points[1]):
        apart = cdist(*points)
        near = int((apart.min(1) <= tolerance).sum()), int((apart.min(0) <= tolerance).sum())
        assert (c.truth_edge_near, c.found_edge_near) == near
    else:
        assert (c.truth_edge_near, c.found_edge_near) == (0, 0)


@given(small, small)
@settings(max_examples=60, deadline=None)
def test_pixel_scores_from_the_confusion_matrix(truth: Labels, found: Labels) -> None:
    s = scores(count(truth, found, None))
    matrix = np.array([[((truth > 0) == a)[(found > 0) == b].sum() for b in (0, 1)] for a in (0, 1)], float)
    rows, columns, hits = matrix.sum(1), matrix.sum(0), np.diag(matrix)

    def ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.divide(a, b, out=np.zeros(2), where=b > 0)

    iou, p, r = ratio(hits, rows + columns - hits), ratio(hits, columns), ratio(hits, rows)
    assert s["mIoU"] == pytest.approx(iou.mean()) and s["iou"] == pytest.approx(iou[1])
    assert (s["mPrecision"], s["precision"]) == (pytest.approx(p.mean()), pytest.approx(p[1]))
    assert (s["mRecall"], s["recall"]) == (pytest.approx(r.mean()), pytest.approx(r[1]))
    assert s["mF1"] == s["mDice"] == pytest.approx(ratio(2 * p * r, p + r).mean())
    assert s["pixel_accuracy"] == pytest.approx(hits.sum() / matrix.sum())
    assert s["mean_accuracy"] == s["mRecall"]
    assert s["FWIoU"] == pytest.approx((rows / matrix.sum() * iou).sum())


def test_a_perfect_prediction_scores_one_in_everything() -> None:
    assert set(scores(count(discs(0), discs(0) * 5)).values()) == {1.0}


def test_an_empty_prediction_still_has_half_of_the_class_means() -> None:
    s = scores(count(discs(0), np.zeros_like(discs(0))))
    assert s["dice"] == s["PQ"] == s["AJI"] == s["BF1"] == 0
    assert 0.3 < s["mDice"] < 0.5


def test_nothing_to_find_and_nothing_found_is_zero_and_does_not_count() -> None:
    empty = np.zeros((8, 8), np.int32)
    assert scores(count(empty, empty))["PQ"] == 0
    some = count(discs(0), discs(0, 1.0))
    assert scores(some + count(empty, empty))["PQ"] == scores(some)["PQ"]


def test_counts_add_up() -> None:
    (t0, f0), (t1, f1) = PAIRS[:2]
    gap = np.zeros((96, 10), np.int32)
    side_by_side = count(np.hstack([t0, gap, t1 + 100 * (t1 > 0)]), np.hstack([f0, gap, f1 + 100 * (f1 > 0)]))
    summed = pool([count(t0, f0), count(t1, f1)])
    # nuclei that touched the picture's edge have a boundary there once it is none
    same = [
        f.name for f in dataclasses.fields(Counts) if "edge" not in f.name and f.name not in ("pixels", "matched_iou")
    ]
    assert [getattr(summed, n) for n in same] == [getattr(side_by_side, n) for n in same]
    assert side_by_side.matched_iou == pytest.approx(summed.matched_iou)
    assert side_by_side.pixels == summed.pixels + gap.size


def test_sizes_must_agree() -> None:
    with pytest.raises(DatasetError, match=r"truth is \(4, 5\) and the prediction \(5, 4\); expected"):
        count(np.zeros((4, 5), np.int32), np.zeros((5, 4), np.int32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_numbers_without_gaps(dtype: type[np.generic]) -> None:
    labels = np.array([[0, 7], [200, 7]]).astype(dtype)
    assert consecutive(labels).tolist() == [[0, 1], [2, 1]]
    assert consecutive(labels + 1).tolist() == [[1, 2], [3, 2]]
    if np.iinfo(dtype).max > 1 << 25:
        assert consecutive(np.where(labels == 200, 1 << 25, labels)).tolist() == [[0, 1], [2, 1]]


def test_pairs_are_sorted() -> None:
    pairs = overlaps(*(consecutive(m) for m in PAIRS[0]))
    assert list(itertools.pairwise(zip(pairs.truth, pairs.found))) == sorted(
        itertools.pairwise(zip(pairs.truth, pairs.found))
    )
    assert (pairs.union == pairs.truth_area[pairs.truth] + pairs.found_area[pairs.found] - pairs.both).all()


def test_summary_is_what_resampling_gives() -> None:
    counts = [count(t, f) for t, f in PAIRS[:5]]
    summary = summarise(counts, resamples=200, seed=3)
    rng = np.random.default_rng(3)
    drawn = [[counts[i] for i in rng.integers(0, 5, 5)] for _ in range(200)]
    for name in ("PQ", "dice", "mDice", "AJI", "BF1", "FWIoU"):
        pooled = [scores(pool(d))[name] for d in drawn]
        mean = [np.mean([scores(c)[name] for c in d]) for d in drawn]
        assert summary.pooled[name] == pytest.approx((scores(pool(counts))[name], *np.quantile(pooled, (0.025, 0.975))))
        each = np.mean([scores(c)[name] for c in counts])
        assert summary.mean[name] == pytest.approx((each, *np.quantile(mean, (0.025, 0.975))))


def test_summary_is_reproducible_and_its_seed_matters() -> None:
    counts = [count(t, f) for t, f in PAIRS[:5]]
    assert summarise(counts) == summarise(counts)
    assert summarise(counts).pooled["PQ"].low != summarise(counts, seed=1).pooled["PQ"].low
    alike = summarise(counts[:1] * 4)
    assert alike.pooled["PQ"].low == pytest.approx(alike.pooled["PQ"].high)


def test_no_image_is_an_error() -> None:
    with pytest.raises(DatasetError, match="no image to score"):
        summarise([])


def test_stacked_counts_score_each_image() -> None:
    counts = [count(t, f) for t, f in PAIRS]
    together = scores(stack(counts))
    for i, c in enumerate(counts):
        assert {k: v[i] for k, v in together.items()} == pytest.approx(scores(c))


def test_mean_over_types_of_pooled_pq() -> None:
    truth, found = PAIRS[0]
    types = {k: ("round", "long")[k % 2] for k in range(1, 26)}
    wrong = types | {int(found.max()): "round"}
    by_type = count_types(truth, types, found, types, ("round", "long"))
    assert by_type["long"] == count(*(np.where(m % 2, m, 0) for m in (truth, found)), None)
    assert mpq_plus(by_type) == np.mean([scores(c)["PQ"] for c in by_type.values()])
    assert mpq_plus(count_types(truth, types, found, wrong, ("round", "long"))) <= mpq_plus(by_type)
    assert count_types(truth, types, found, {}, ("round",))["round"].found == 0
