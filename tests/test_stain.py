"""Stain normalisation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.conftest import Phantom
from wsipipe.errors import SettingsError
from wsipipe.models import checkpoint
from wsipipe.pipelines.export import export_model
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.prepare import prepare
from wsipipe.settings import GridSettings, SlideSettings
from wsipipe.stain import FEWEST_PIXELS, GLASS, Colours, average, colours_of, is_glass, normalise

PINK, VIOLET = (225, 160, 190), (90, 60, 140)


def tissue(shift: int = 0, glass: float = 0.0, side: int = 128) -> np.ndarray:
    """Return a picture of two colours, changed by *shift* grey levels, partly glass."""
    rng = np.random.default_rng(0)
    colours = np.where(rng.random((side, side, 1)) < 0.3, VIOLET, PINK) + rng.normal(0, 8, (side, side, 3))
    picture = np.clip(colours + shift, 0, 255)
    picture[: int(side * glass)] = 245
    return picture.astype(np.uint8)


def test_glass_shows_fewer_tissue_pixels_than_a_nucleus_has() -> None:
    picture = np.full((64, 64, 3), GLASS + 1, np.uint8)
    picture[0, : FEWEST_PIXELS - 1, 1] = GLASS  # one channel is enough
    assert is_glass(picture)
    picture[0, FEWEST_PIXELS - 1, 2] = 0
    assert not is_glass(picture) and not is_glass(tissue()) and not is_glass(np.zeros_like(picture))


def test_no_change_leaves_pixels_as_they_are() -> None:
    assert np.array_equal(normalise(tissue(), ()), tissue())


def test_the_same_tissue_in_other_colours_becomes_the_same() -> None:
    target = colours_of([tissue()])
    for shift in (-30, 20):
        own = colours_of([tissue(shift)])
        assert own and target
        after = normalise(tissue(shift)[None], own.change_to(target))
        assert after.shape == (1, 128, 128, 3) and after.dtype == np.uint8
        before = np.abs(tissue(shift).astype(int) - tissue()).mean()
        assert np.abs(after[0].astype(int) - tissue()).mean() < 0.35 * before


def test_own_colours_change_hardly_anything() -> None:
    own = colours_of([tissue()])
    assert own and own.change_to(own) == ((1, 1, 1), (0, 0, 0))
    after = normalise(tissue()[None], own.change_to(own))[0]
    assert np.abs(after.astype(int) - tissue()).max() <= 4  # the way to 8-bit Lab and back


def test_glass_has_no_say() -> None:
    plain, half = colours_of([tissue()]), colours_of([tissue(glass=0.5)])
    assert plain and half
    np.testing.assert_allclose(plain.mean, half.mean, atol=1)
    np.testing.assert_allclose(plain.spread, half.spread, atol=1)
    assert colours_of([np.full((64, 64, 3), 245, np.uint8)]) is None and colours_of([]) is None


def test_nothing_is_stretched_without_limit() -> None:
    flat, target = Colours((150, 140, 120), (0, 0.1, 100)), Colours((160, 150, 110), (30, 8, 8))
    assert flat.change_to(target)[0] == (2, 2, 0.5)


def test_tiles_do_not_depend_on_their_neighbours() -> None:
    own, target = colours_of([tissue(10)]), colours_of([tissue()])
    assert own and target
    change = own.change_to(target)
    many = np.stack([tissue(10), tissue(5)])
    np.testing.assert_array_equal(normalise(many, change)[1], normalise(many[1:], change)[0])


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_averages_are_weighted(weight: float) -> None:
    a, b = Colours((100, 100, 100), (10, 10, 10)), Colours((200, 100, 100), (30, 10, 10))
    mean = average([(a, 1.0), (b, weight), (None, 5.0)])
    assert mean and mean.mean[0] == pytest.approx((100 + 200 * weight) / (1 + weight), abs=1e-3)
    assert average([(None, 1.0)]) is None


def test_segmenting_normalises_where_the_model_asks(phantom: Phantom, tiny_model: Path, tmp_path: Path) -> None:
    network, card = checkpoint.load(tiny_model)
    plain, asks = SlideSettings(), tmp_path / "asks.safetensors"
    with pytest.raises(SettingsError, match="does not say which colours"):
        export_model(tiny_model, asks, None, None, {}, False, normalise=True)
    target = Colours((150.0, 160.0, 110.0), (35.0, 8.0, 8.0))
    checkpoint.save(tmp_path / "knows.safetensors", network, replace(card, colours=target))
    export_model(tmp_path / "knows.safetensors", asks, None, None, {}, False, normalise=True)
    assert checkpoint.read_card(asks).colours == target
    export_model(asks, tmp_path / "again.safetensors", None, None, {}, False)
    export_model(asks, tmp_path / "no.safetensors", None, None, {}, False, normalise=False)
    assert checkpoint.read_card(tmp_path / "again.safetensors").normalise
    assert not checkpoint.read_card(tmp_path / "no.safetensors").normalise

    def stain_of(model: Path, stain: str) -> object:
        job = SegmentJob(str(phantom.path), (tmp_path / "c.parquet",), slide=plain, model=str(model))
        return prepare(replace(job, grid=GridSettings(stain=stain)), Progress()).plan.stain

    assert stain_of(tmp_path / "knows.safetensors", "auto") == stain_of(asks, "as-is") == ()
    assert stain_of(asks, "auto") == stain_of(tmp_path / "knows.safetensors", "normalised") != ()
    with pytest.raises(SettingsError, match="does not say which colours"):
        stain_of(tiny_model, "normalised")


TRAINED = Colours((164, 150, 115), (31, 8, 8))


@pytest.mark.parametrize(
    ("own", "far"),
    [
        (TRAINED, False),
        (replace(TRAINED, mean=(204, 137, 126)), False),  # a pale slide, as training has them
        (replace(TRAINED, mean=(164, 185, 115)), True),  # another hue
        (replace(TRAINED, spread=(17, 8, 8)), True),  # faded
        (replace(TRAINED, spread=(45, 8, 8)), False),  # strong
        (None, False),
    ],
)
def test_far_colours_are_normalised_unless_asked_not_to(own: Colours | None, far: bool) -> None:
    card = replace(tiny.card(), colours=TRAINED)
    assert card.is_far(own) is far
    wanted = own.change_to(TRAINED) if own else ()
    assert card.change_for("auto", own) == (wanted if far else ())
    assert card.change_for("as-is", own) == ()
    assert card.change_for("normalised", own) == wanted
    assert replace(card, normalise=True).change_for("auto", own) == wanted
    assert tiny.card().change_for("auto", own) == (), "a model that does not know its colours"
