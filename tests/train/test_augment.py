"""Samples are functions of their generator; image and labels stay together."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tiny import disc_labels
from wsipipe.labels import Annotated
from wsipipe.settings import AugmentSettings
from wsipipe.train.augment import OUTSIDE, appearance, crop, densities, jpeg, painted, plain_crop, stain
from wsipipe.train.immunostain import immunostained

PLAIN = AugmentSettings(scale_low=1, scale_high=1, stain=0, brightness=0, blur=0, jpeg=0)


def annotated(side: int = 200, mpp: float = 0.5, seed: int = 0) -> Annotated:
    """Return a picture that shows its own instance map: white discs on black."""
    rng = np.random.default_rng(seed)
    labels = disc_labels(side, *((*rng.uniform(0, side, 2), rng.uniform(5, 14)) for _ in range(25)))
    image = np.where(labels > 0, 255, 0).astype(np.uint8)[..., None].repeat(3, 2)
    return Annotated("a", "a", image, labels, mpp)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(seed: int = 0, side: int = 48) -> NDArray[np.uint8]:
    coarse = rng(seed).integers(60, 250, (side // 8, side // 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.7])
def test_labels_lie_where_the_image_shows_them(seed: int, mpp: float) -> None:
    source = annotated(mpp=mpp)
    image, labels = crop(source, 96, 0.5, rng(seed), AugmentSettings())
    assert image.shape == (96, 96, 3) and image.dtype == np.uint8
    assert labels.shape == (96, 96) and labels.dtype == np.int32
    known = labels != OUTSIDE
    shown = image[..., 0] >= 128
    assert known.mean() > 0.6
    assert (shown == (labels > 0))[known].mean() > 0.98
    inside, outside = (cv2.erode(m.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0 for m in (labels > 0, labels == 0))
    assert shown[inside].mean() > 0.998 and shown[outside].mean() < 0.002  # labels miss gaps of one source pixel


@pytest.mark.parametrize("seed", range(4))
def test_a_crop_larger_than_the_picture_is_mirrored_and_labelled_outside(seed: int) -> None:
    source = annotated(side=60)
    image, labels = crop(source, 128, 0.5, rng(seed), PLAIN)
    assert 0.7 * 60**2 < (labels != OUTSIDE).sum() < 1.1 * 60**2
    assert set(np.unique(labels)) - {OUTSIDE} <= set(np.unique(source.labels))
    assert image[labels == OUTSIDE].max() == 255


@pytest.mark.parametrize("seed", range(3))
def test_magnification_follows_the_resolutions(seed: int) -> None:
    source = annotated(side=240, mpp=0.25)
    fine, _ = crop(source, 64, 0.25, rng(seed), PLAIN)
    _, coarse = crop(dataclasses.replace(source, labels=np.ones_like(source.labels)), 128, 0.5, rng(seed), PLAIN)
    assert fine.shape == (64, 64, 3)
    assert (coarse == 1).sum() == pytest.approx(120**2, rel=0.15)


def test_the_generator_alone_decides() -> None:
    source, settings = annotated(), AugmentSettings()

    def sample(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        generator = rng(seed)
        image, labels = crop(source, 64, 0.5, generator, settings)
        return appearance(image, generator, settings), labels

    before = source.image.copy(), source.labels.copy()
    (a, la), (b, lb), (c, _) = sample(1), sample(1), sample(2)
    assert np.array_equal(a, b) and np.array_equal(la, lb) and not np.array_equal(a, c)
    assert np.array_equal(source.image, before[0]) and np.array_equal(source.labels, before[1])


@pytest.mark.parametrize("seed", range(8))
def test_appearance_keeps_shape_and_type_and_does_not_move_things(seed: int) -> None:
    image = np.full((64, 64, 3), 230, np.uint8)
    image[20:40, 24:50] = (110, 70, 150)
    changed = appearance(image, rng(seed), AugmentSettings())
    assert changed.shape == image.shape and changed.dtype == np.uint8
    assert changed[24:36, 28:46].mean() + 40 < changed[:16].mean()


def test_without_changes_appearance_is_the_identity_up_to_noise_and_slight_blur() -> None:
    image = picture()
    for seed in range(5):
        difference = appearance(image, rng(seed), PLAIN).astype(int) - image
        assert abs(difference.mean()) < 1.5 and np.abs(difference).mean() < 8


def test_stain_without_spread_keeps_the_picture() -> None:
    image = picture()
    assert np.abs(stain(image, rng(0), 0.0).astype(int) - image).max() <= 1


def test_jpeg_keeps_the_order_of_channels() -> None:
    image = np.full((32, 32, 3), (200, 60, 120), np.uint8)
    assert np.abs(jpeg(image, 90).astype(int) - image).max() < 6


def test_half_the_resolution_is_the_mean_of_four_pixels() -> None:
    source = annotated(side=256, mpp=0.25)
    half, labels = plain_crop(source, (16.0, 16.0), 64, 0.5)
    boxed = source.image.astype(float).reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(half - boxed[16:80, 16:80]).max() <= 1 and labels.shape == (64, 64)


@pytest.mark.parametrize("side", [192, 256, 358])
def test_turned_crops_are_as_sharp_as_the_slide(side: int) -> None:
    speckle = rng(0).normal(0, 1, (512, 512, 1)).astype(np.float32)
    fine = 128 + 150 * cv2.GaussianBlur(speckle, (0, 0), 1.2)[..., None].repeat(3, 2)
    source = dataclasses.replace(annotated(side=512, mpp=0.25), image=np.clip(fine, 0, 255).astype(np.uint8))

    def contrast(image: NDArray[np.uint8]) -> float:
        return float(cv2.Laplacian(image[..., 0].astype(np.float32), cv2.CV_32F).std())

    turned = np.mean([contrast(crop(source, 96, 128 / side, rng(seed), PLAIN)[0]) for seed in range(20)])
    on_slide = contrast(cv2.resize(source.image, (side, side), interpolation=cv2.INTER_AREA))
    assert 0.87 < turned / on_slide < 1.07


@pytest.mark.parametrize(("smallest", "expected"), [(6.0, 1.0), (16.0, 0.6)])
def test_small_nuclei_are_not_shrunk_below_what_can_be_told_apart(smallest: float, expected: float) -> None:
    labels = disc_labels(400, *((40 + 80 * i, 40 + 80 * j, smallest) for i in range(5) for j in range(5)))
    source = dataclasses.replace(annotated(side=400), labels=labels)
    settings = dataclasses.replace(PLAIN, scale_low=0.5, scale_high=1.0)
    areas = [
        np.bincount(np.maximum(crop(source, 128, 0.5, rng(seed), settings)[1], 0).ravel())[1:] for seed in range(40)
    ]
    across = min(2 * (found.max() / np.pi) ** 0.5 for found in areas if found.any())
    assert across >= min(9.0, 2 * smallest) * 0.9
    assert (across < 2 * smallest * 0.75) == (expected < 1)


def test_crops_on_nuclei_find_the_only_one() -> None:
    labels = disc_labels(600, (500, 90, 6))
    source = dataclasses.replace(annotated(side=600), labels=labels)
    for wanted, least in ((1.0, 12), (0.0, 0)):
        settings = dataclasses.replace(PLAIN, on_nuclei=wanted)
        seen = sum((crop(source, 64, 0.5, rng(seed), settings)[1] == 1).any() for seed in range(12))
        assert seen == 12 if least else seen < 6


def test_a_picture_turns_brown_and_blue_where_it_was_pink_and_blue() -> None:
    labels = disc_labels(96, *((16 + 32 * i, 16 + 32 * j, 9) for i in range(3) for j in range(3)))
    stains = np.zeros((96, 96, 3))
    stains[..., 1], stains[labels > 0, 0] = 0.4, 1.0
    image = painted(stains)
    brown, nuclei = [], 0
    for seed in range(20):
        changed = immunostained(image, labels, rng(seed))
        assert changed.shape == image.shape and changed.dtype == np.uint8
        density = densities(changed)
        assert density[labels == 0, 1].mean() < 0.6 * stains[labels == 0, 1].mean()  # eosin fades
        strength = [density[labels == k, 2].mean() for k in range(1, 10)]
        brown.append(np.mean(np.array(strength) > 0.25))
        nuclei += int(max(strength) > 0.25 > min(strength))
    assert 0.05 < np.mean(brown) < 0.8 and nuclei > 3  # some are brown, and brown and blue ones lie side by side


def test_the_repainting_is_a_function_of_its_generator() -> None:
    source = annotated()
    a, b, c = (immunostained(source.image, source.labels, rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    nothing = np.full((20, 20), OUTSIDE, np.int32)
    assert immunostained(source.image[:20, :20], nothing, rng(0)).shape == (20, 20, 3)
