"""The resolution of a slide that does not state it."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner

from tests.conftest import Phantom
from wsipipe.cli.info import command
from wsipipe.pipelines.estimate import Trial, conclude, estimate_mpp
from wsipipe.settings import SlideSettings
from wsipipe.slide import open_slide


def trials(*medians: float, nuclei: int = 80, probability: float = 0.85, oversize: float = 0.0) -> list[Trial]:
    return [Trial(0.125 * 2**k, nuclei, probability, um, oversize) for k, um in enumerate(medians)]


def test_the_estimate_lies_where_nuclei_have_their_size() -> None:
    found = conclude(trials(3.25, 6.5 / math.sqrt(2), 6.5 * math.sqrt(2), 11.0))
    assert found.mpp == pytest.approx(0.25 * math.sqrt(2)) and found.sure
    assert "likely within a factor" in found.in_words and "--mpp 0.35" in found.in_words


def test_what_is_only_larger_or_smaller_is_scaled() -> None:
    assert conclude(trials(13.0)).mpp == pytest.approx(0.0625)


@pytest.mark.parametrize("doubt", [{"nuclei": 20}, {"probability": 0.7}, {"oversize": 0.2}])
def test_it_says_when_it_is_not_sure(doubt: dict[str, float]) -> None:
    found = conclude(trials(3, 6, 9, **doubt))  # type: ignore[arg-type]
    assert found.mpp and not found.sure and "unsure" in found.in_words


def test_of_several_passages_the_better_seen_counts() -> None:
    noise = [Trial(0.05, 12, 0.6, 5.0), Trial(0.06, 12, 0.6, 7.0)]
    assert conclude([*noise, *trials(3.0, 6.0, 9.0)]).mpp == pytest.approx(0.28, abs=0.03)


def test_without_nuclei_there_is_no_estimate() -> None:
    found = conclude(trials(3, 6, 9, nuclei=4))
    assert found.mpp is None and not found.sure and found.in_words.startswith("no estimate")


def test_a_drawn_slide(phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small picture at 0.5 µm/px that does not say so, at three resolutions."""
    monkeypatch.setattr("wsipipe.pipelines.estimate.ASSUMED_MPP", (0.25, 0.5, 1.0))
    monkeypatch.setattr("wsipipe.pipelines.estimate.FIELD_PX", 220)
    with open_slide(phantom.path) as slide:
        pixels = slide.read_region(0, 540, 280, 440, 440)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    found = estimate_mpp(str(tmp_path / "a.png"), "cmd-t", SlideSettings())
    assert found.mpp == pytest.approx(0.5, rel=0.25) and [t.mpp for t in found.trials] == [0.25, 0.5, 1.0]
    monkeypatch.setattr("wsipipe.pipelines.estimate.estimate_mpp", lambda *_: found)
    result = CliRunner().invoke(command, [str(tmp_path / "a.png"), "--estimate-mpp"])
    assert result.exit_code == 0 and result.output.splitlines()[-1] == found.in_words
