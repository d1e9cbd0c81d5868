"""Splits that no patient crosses."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsipipe.corpus.splits import draw_splits
from wsipipe.errors import SettingsError


@given(st.sets(st.text(max_size=5), min_size=1, max_size=60), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 9))
def test_shares_are_met_and_one_is_left_to_train(patients: set[str], val: float, test: float, seed: int) -> None:
    drawn = draw_splits(patients, val, test, seed)
    assert set(drawn) == patients
    counts = Counter(drawn.values())
    assert counts["train"] >= 1 or val + test == 1
    for name, share in (("val", val), ("test", test)):
        assert counts[name] <= max(1, round(share * len(patients)))
        assert counts[name] == 0 or share > 0
    assert drawn == draw_splits(sorted(patients, reverse=True), val, test, seed)


def test_the_seed_draws_and_a_new_patient_moves_few() -> None:
    patients = [f"P{i}" for i in range(100)]
    drawn = draw_splits(patients, 0.2, 0.1, 0)
    assert Counter(drawn.values()) == {"train": 70, "val": 20, "test": 10}
    assert drawn != draw_splits(patients, 0.2, 0.1, 1)
    more = draw_splits([*patients, "new"], 0.2, 0.1, 0)
    assert sum(more[p] != drawn[p] for p in patients) <= 3


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(SettingsError, match="add up to at most 1"):
        draw_splits(["a"], 0.6, 0.6, 0)
    assert draw_splits(["a", "b"], 0, 1, 0) == {"a": "test", "b": "test"}
