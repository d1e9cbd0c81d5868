"""Scores by their definitions, and thresholds from histograms."""

from __future__ import annotations

import numpy as np
import pytest

from wsipipe.analysis.derived import derived_class, split_class
from wsipipe.analysis.scores import allred, grades_of, h_score, suggest
from wsipipe.errors import SettingsError
from wsipipe.settings import ScoreSettings


def test_h_score_and_allred_by_their_definitions() -> None:
    assert h_score([25, 25, 25, 25]) == 150 and allred(0.75, 2.0) == (5, 2)
    assert h_score([100, 0, 0, 1]) == pytest.approx(300 / 101) and sum(allred(1 / 101, 3.0)) == 4
    assert h_score([0, 0, 0, 9]) == 300 and allred(0.0, 0.0) == (0, 0)
    assert np.isnan(h_score([0, 0, 0, 0]))


@pytest.mark.parametrize(
    ("share", "score"),
    [(0.005, 1), (0.01, 1), (0.0101, 2), (0.1, 2), (0.11, 3), (1 / 3, 3), (0.34, 4), (2 / 3, 4), (0.67, 5), (1.0, 5)],
)
def test_allred_proportions(share: float, score: int) -> None:
    assert allred(share, 1.0)[0] == score


@pytest.mark.parametrize(("strength", "score"), [(1, 1), (5 / 3, 1), (1.7, 2), (7 / 3, 2), (2.34, 3), (3, 3)])
def test_allred_intensities(strength: float, score: int) -> None:
    assert allred(0.5, strength)[1] == score
    counts = {5 / 3: (2, 0, 1), 7 / 3: (1, 0, 2)}.get(strength)
    if counts:  # as it is computed from cells: 1/3 and 2/3 are no numbers of the computer
        mean = sum(k * n for k, n in enumerate(counts, 1)) / sum(counts)
        assert allred(0.5, mean)[1] == score


def test_grades() -> None:
    values = np.array([0.1, 0.2, 0.39, 0.4, 0.7, np.nan])
    assert grades_of(values, (0.2, 0.4, 0.6)).tolist() == ["Negative", "1+", "1+", "2+", "3+", ""]
    assert grades_of(values, (0.2,)).tolist() == ["Negative", *["Positive"] * 4, ""]


@pytest.mark.parametrize(
    ("name", "parts"),
    [("Tumor: Positive", ("Tumor", "Positive")), ("2+", ("", "2+")), ("A: B", ("A: B", "")), ("", ("", ""))],
)
def test_derived_classes(name: str, parts: tuple[str, str]) -> None:
    assert split_class(name) == parts and derived_class(*parts) == name
    assert split_class(None) == ("", "")


def test_suggested_thresholds_part_two_populations() -> None:
    rng = np.random.default_rng(0)
    negative, positive = rng.normal(0.06, 0.015, 9000), rng.uniform(0.3, 1.2, 1000)
    (cut,) = suggest(np.append(negative, positive), 1)
    assert 0.1 < cut < 0.32
    first, second, third = suggest(np.append(negative, positive), 3)
    assert first == cut < second < third < 1.2 and second - first > 0.1 and third - second > 0.1
    assert suggest(negative, 1) == () and suggest(negative[:20], 1) == ()
    shuffled = rng.permutation(np.append(negative, [*positive, np.nan]))
    assert suggest(shuffled, 1) == (cut,)


@pytest.mark.parametrize("text", ["0.2,0.1,0.3", "0.2,0.4", "x", "0", "-1", ""])
def test_thresholds_that_mean_nothing(text: str) -> None:
    with pytest.raises(SettingsError, match="expected one number or three that rise"):
        ScoreSettings(intensity_thresholds=text)
