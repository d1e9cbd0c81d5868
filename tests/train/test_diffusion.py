"""The objective is the paper's: exact masks, the timestep law, the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from tests import tiny
from wsipipe.errors import DatasetError
from wsipipe.train.diffusion import (
    TIMESTEPS,
    draw,
    hide,
    mask,
    masked_count,
    normalise,
    reconstruction_loss,
    ssim,
    view,
)

PATCH = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(t=st.integers(1, 1000), seed=st.integers(0, 2**32 - 1))
def test_exactly_the_floor_of_r_times_n_squares_are_masked(t: int, seed: int) -> None:
    hidden = mask(t, rng(seed))
    assert hidden.shape == (32, 32) and hidden.dtype == bool
    count = hidden.sum()
    assert count * 1001 <= t * 1024 < (count + 1) * 1001  # floor, in integers: r = t / (T + 1), N = 1024


def test_counts_at_the_ends() -> None:
    assert [masked_count(t) for t in (1, 500, 1000)] == [1, 511, 1022]
    assert mask(1, rng()).sum() == 1 and (~mask(1000, rng())).sum() == 2


def test_every_square_is_masked_as_often() -> None:
    often = np.mean([mask(500, rng(seed)) for seed in range(2000)], axis=0)
    assert abs(often.mean() - 511 / 1024) < 1e-9
    assert np.abs(often - 511 / 1024).max() < 5 * 0.5 / 2000**0.5


def test_timesteps_are_uniform_from_1_to_1000() -> None:
    patch = np.zeros((512, 512, 3), np.uint8)
    drawn = np.array([draw(patch, rng(seed), crop_share=1).timestep for seed in range(10_000)])
    assert drawn.min() == 1 and drawn.max() == TIMESTEPS
    counts = np.histogram(drawn, np.linspace(0.5, 1000.5, 21))[0]
    assert ((counts - 500) ** 2 / 500).sum() < 45  # chi-squared, 19 degrees of freedom: p = 0.0007


def test_a_sample_is_a_function_of_its_generator() -> None:
    a, b, c = draw(PATCH, rng(1)), draw(PATCH, rng(1)), draw(PATCH, rng(2))
    assert np.array_equal(a.image, b.image) and a.timestep == b.timestep and np.array_equal(a.hidden, b.hidden)
    assert not np.array_equal(a.image, c.image) and not np.array_equal(a.hidden, c.hidden)
    assert a.hidden.sum() == masked_count(a.timestep)


def test_crops_are_pixels_of_the_patch_at_any_place_and_the_rest_shows_the_whole() -> None:
    y, x = np.mgrid[:512, :512]
    patch = np.stack([x // 2, y // 2, np.zeros_like(x)], axis=-1).astype(np.uint8)
    whole = patch.reshape(256, 2, 256, 2, 3).mean((1, 3)).round().astype(np.uint8)
    corners, resized = [], 0
    for seed in range(2000):
        image = view(patch, rng(seed))
        assert image.shape == (256, 256, 3) and image.dtype == np.uint8
        if np.array_equal(image, whole):
            resized += 1
        else:
            corners.append((int(image[0, 0, 0]) * 2, int(image[0, 0, 1]) * 2))
            assert image[-1, -1, 0] - image[0, 0, 0] in (127, 128)
    assert abs(resized / 2000 - 0.2) < 5 * 0.4 / 2000**0.5
    assert np.min(corners) <= 2 and np.max(corners) == 256  # the largest offset, 256, is drawn too
    assert np.array_equal(view(patch, rng(), crop_share=0), whole)


@pytest.mark.parametrize("patch", [np.zeros((256, 256, 3), np.uint8), np.zeros((512, 512, 3), np.float32)])
def test_other_patches_are_refused(patch: np.ndarray) -> None:
    with pytest.raises(DatasetError, match=r"expected uint8 \(512, 512, 3\)"):
        draw(patch, rng())


def test_masked_pixels_are_zero_after_normalising_and_the_rest_untouched() -> None:
    images = torch.from_numpy(np.stack([PATCH[:256, :256], PATCH[256:, 256:]]))
    hidden = torch.from_numpy(np.stack([mask(300, rng(0)), mask(800, rng(1))]))
    x = normalise(images)
    assert x.is_contiguous(memory_format=torch.channels_last) and x.min() == -1 and x.max() == 1
    masked = hide(x, hidden)
    assert masked.is_contiguous(memory_format=torch.channels_last)
    for b in range(2):
        for row in range(32):
            for column in range(32):
                box = (b, slice(None), slice(row * 8, row * 8 + 8), slice(column * 8, column * 8 + 8))
                assert torch.equal(masked[box], torch.zeros(3, 8, 8) if hidden[b, row, column] else x[box])


def test_the_loss_by_hand() -> None:
    image, output = torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.25)
    output[0] = -0.75
    assert reconstruction_loss(output, image).item() == pytest.approx((0.75 + 0.25) / 2)
    assert reconstruction_loss(output, image, l1=3).item() == pytest.approx(1.5)
    both = reconstruction_loss(output, image, l1=2, ssim_weight=0.5).item()
    assert both == pytest.approx(2 * 0.5 + 0.5 * (1 - ssim(output, image).item()) / 2)
    assert reconstruction_loss(image, image, ssim_weight=1).item() == pytest.approx(0, abs=1e-6)


def test_ssim_of_constants_by_hand() -> None:
    a, b, c1 = torch.full((1, 3, 11, 11), 0.5), torch.full((1, 3, 11, 11), -0.1), 0.02**2
    expected = (2 * 0.5 * -0.1 + c1) / (0.5**2 + 0.1**2 + c1)  # variances and covariance are 0
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-5)


def test_ssim_is_that_of_scikit_image() -> None:
    a = torch.from_numpy(rng(1).uniform(-1, 1, (1, 3, 40, 52))).double()
    b = (a + torch.from_numpy(rng(2).normal(0, 0.3, a.shape))).clamp(-1, 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2.0}
    expected = structural_similarity(a[0].numpy(), b[0].numpy(), channel_axis=0, **options)
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_gradients_reach_every_parameter_and_one_batch_is_overfitted(weight: float) -> None:
    network = tiny.shake(tiny.backbone(condition=12))
    image, _ = tiny.disc_batch(64)
    hidden, t = torch.zeros(2, 8, 8, dtype=torch.bool), torch.tensor([250, 400])
    hidden[0, ::2, ::2], hidden[1, :, ::3] = True, True
    z = torch.randn(2, 12)
    reconstruction_loss(network(hide(image, hidden), t, z), image, ssim_weight=weight).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []

    network, losses = tiny.backbone(), []
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(20):
        optimiser.zero_grad()
        loss = reconstruction_loss(network(hide(image, hidden), t), image, ssim_weight=weight)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
