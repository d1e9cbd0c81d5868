"""Scores of cell types agree with counting by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsipipe.evaluate.metrics import confusion, count, count_types, scored, scores, summarise_types

small = hnp.arrays(np.int32, (7, 8), elements=st.integers(-1, 5))
found_maps = hnp.arrays(np.int32, (7, 8), elements=st.integers(0, 5))
kinds = st.dictionaries(st.integers(1, 5), st.sampled_from(["a", "b", "c", ""]))
NAMES = ("a", "b")


@given(small, found_maps, kinds, kinds)
def test_confusion_agrees_with_brute_force(
    truth: np.ndarray, found: np.ndarray, of_truth: dict[int, str], of_found: dict[int, str]
) -> None:
    table = confusion(truth, of_truth, found, of_found, NAMES)
    known = truth >= 0
    cells = {}
    for k in range(1, 6):
        whole = found == k
        if whole.any() and 2 * (whole & known).sum() >= whole.sum() and (whole & known).any():
            cells[k] = whole & known
    expected = np.zeros((3, 3), int)
    taken = set()
    for t in (t for t in range(1, 6) if (truth == t).any()):
        kind = of_truth.get(t)
        partner = [f for f, m in cells.items() if ((truth == t) & m).sum() / ((truth == t) | m).sum() > 0.5]
        taken |= set(partner)
        if kind not in NAMES:
            continue
        if not partner:
            expected[NAMES.index(kind), 2] += 1
        elif of_found.get(partner[0]) in NAMES:
            expected[NAMES.index(kind), NAMES.index(of_found[partner[0]])] += 1
    for f in cells.keys() - taken:
        if of_found.get(f) in NAMES:
            expected[2, NAMES.index(of_found[f])] += 1
    assert (table == expected).all()


@given(small, found_maps)
def test_pixels_that_nobody_annotated_do_not_count(truth: np.ndarray, found: np.ndarray) -> None:
    c, known = count(truth, found, tolerance=None), truth >= 0
    kept = [k for k in range(1, 6) if 2 * (known & (found == k)).sum() >= (found == k).sum()]
    left = np.where(known & np.isin(found, kept), found, 0)
    assert (scored(truth, found)[1] > 0).tolist() == (left > 0).tolist()
    plain = count(np.maximum(truth, 0), left, tolerance=None)
    assert c == dataclasses.replace(plain, pixels=int(known.sum()))


def scene(seed: int) -> tuple[np.ndarray, dict[int, str], np.ndarray, dict[int, str]]:
    rng = np.random.default_rng(seed)
    truth = np.zeros((60, 60), np.int32)
    for k in range(1, 37):
        y, x = divmod(k - 1, 6)
        truth[10 * y : 10 * y + 7, 10 * x : 10 * x + 7] = k
    found = np.where(np.isin(truth, rng.choice(36, 6) + 1), 0, truth)
    of_truth = {k: ("a", "b")[k % 2] for k in range(1, 37)}
    of_found = {k: kind if rng.random() > 0.2 else "b" for k, kind in of_truth.items()}
    return truth, of_truth, found, of_found


def test_summary_is_what_resampling_gives() -> None:
    scenes = [scene(s) for s in range(5)]
    by_image = [count_types(*s, names=NAMES) for s in scenes]
    tables = [confusion(*s, names=NAMES) for s in scenes]
    summary = summarise_types(by_image, tables, resamples=100, seed=2)
    pooled = {n: scores(sum((c[n] for c in by_image[1:]), by_image[0][n])) for n in NAMES}
    assert {n: summary.scores[n]["PQ"].value for n in NAMES} == {n: pooled[n]["PQ"] for n in NAMES}
    assert summary.mpq_plus.value == pytest.approx(np.mean([pooled[n]["PQ"] for n in NAMES]))
    assert summary.mean_f1.value == pytest.approx(np.mean([pooled[n]["DQ"] for n in NAMES]))
    rng, again = np.random.default_rng(2), []
    for _ in range(100):
        drawn = [by_image[i] for i in rng.integers(0, 5, 5)]
        again.append(np.mean([scores(sum((c[n] for c in drawn[1:]), drawn[0][n]))["PQ"] for n in NAMES]))
    assert summary.mpq_plus[1:] == pytest.approx(tuple(np.quantile(again, (0.025, 0.975))))
    assert (summary.confusion == sum(tables)).all() and summary.confusion.sum() == 5 * 36


def test_a_type_that_truth_lacks_has_no_part_in_the_means() -> None:
    truth, of_truth, found, of_found = scene(0)
    names = (*NAMES, "c")
    table = confusion(truth, of_truth, found, of_found, names)
    one = summarise_types([count_types(truth, of_truth, found, of_found, names)], [table], 10)
    two = summarise_types([count_types(truth, of_truth, found, of_found, NAMES)], [table[:3, :3]], 10)
    assert one.mpq_plus == two.mpq_plus and one.scores["c"]["PQ"].value == 0
