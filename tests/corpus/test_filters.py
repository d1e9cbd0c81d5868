"""Why patches are dropped."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.corpus.conftest import Pixels, dense
from wsipipe.corpus.candidates import Look, find_candidates
from wsipipe.corpus.filters import Measures, measure, why_not
from wsipipe.corpus.sources import find_sources
from wsipipe.settings import CorpusSettings, SlideSettings, TissueSettings

LOOK = Look(np.array([243, 243, 243], np.float32), 0.2, 0.5)
SETTINGS = CorpusSettings()


@pytest.fixture
def patch(tissue: Pixels) -> Pixels:
    x, y = dense(tissue, 256)[0]
    return np.ascontiguousarray(tissue[y : y + 256, x : x + 256])


def verdict(pixels: Pixels, mpp: float = 0.5, look: Look = LOOK) -> str:
    return why_not(measure(np.ascontiguousarray(pixels), mpp, look), SETTINGS)


def test_good_tissue_is_kept(patch: Pixels) -> None:
    assert verdict(patch) == ""
    found = measure(patch, 0.5, LOOK)
    assert found.background < 0.2 and found.pen == 0 and found.folds == 0 and found.focus > 15


def test_glass(patch: Pixels) -> None:
    assert verdict(np.full_like(patch, 243)) == "background"
    half = patch.copy()
    half[:160] = 243
    assert verdict(half) == "background"
    assert measure(half, 0.5, LOOK).background == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_focus_is_judged_in_microns(patch: Pixels, mpp: float) -> None:
    look = LOOK._replace(mpp=mpp)
    assert verdict(patch, mpp, look) == ""
    blurred = cv2.GaussianBlur(patch, (0, 0), 2.5 / mpp)
    assert verdict(np.asarray(blurred, np.uint8), mpp, look) == "blur"


def test_what_was_enlarged_is_not_called_blurred(patch: Pixels) -> None:
    twice = np.asarray(cv2.resize(patch, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR), np.uint8)
    assert measure(twice, 0.25, LOOK).focus > 0.6 * measure(patch, 0.5, LOOK).focus


@pytest.mark.parametrize("colour", [(30, 60, 160), (20, 110, 60), (25, 25, 28)])
def test_pen(patch: Pixels, colour: tuple[int, int, int]) -> None:
    inked = patch.copy()
    cv2.line(inked, (0, 40), (255, 200), colour, 40)
    assert verdict(inked) == "pen"


def test_folds(patch: Pixels) -> None:
    layer = (patch / 243.0) ** 2.5  # drawn tissue is pale
    body, fold = (np.asarray(np.clip(layer**n, 0, 1) * 243, np.uint8) for n in (1, 2))
    look = LOOK._replace(density=0.3)
    assert verdict(body, look=look) == ""
    body[60:160] = fold[60:160]
    assert verdict(body, look=look) == "folds"
    assert verdict(body, look=look._replace(density=0.5)) == ""  # where all the tissue is as dense


def test_every_knob_decides() -> None:
    assert why_not(Measures(0.4, 0, 50, 0), CorpusSettings(max_background=0.3)) == "background"
    assert why_not(Measures(0, 0.01, 50, 0), CorpusSettings(max_pen=0.0)) == "pen"
    assert why_not(Measures(0, 0, 50, 0), CorpusSettings(min_focus=60.0)) == "blur"
    assert why_not(Measures(0, 0, 50, 0.05), CorpusSettings(max_folds=0.01)) == "folds"
    assert why_not(Measures(1, 1, 0, 1), CorpusSettings(max_background=1, max_pen=1, min_focus=0, max_folds=1)) == ""


@pytest.mark.parametrize(("folder", "mpp"), [("kumar-train16", 0.25), ("tnbc", 0.25), ("glas", 0.62)])
def test_real_tissue_has_no_pen_and_no_blur(shared_data: Path, folder: str, mpp: float) -> None:
    where = shared_data / ("unlabelled/glas" if folder == "glas" else f"{folder}/images")
    for source in find_sources([where])[::9][:4]:
        settings = CorpusSettings(mpp=0.0, max_zoom=2.0)
        found = find_candidates(source, settings, SlideSettings(), TissueSettings(), mpp)
        for number in range(len(found.corners)):
            pixels = found.read(number)
            assert pixels is not None
            assert why_not(measure(pixels, found.mpp, found.look), settings) in ("", "background")
