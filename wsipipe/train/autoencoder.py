"""Train the autoencoder in whose latents a backbone can be pretrained: what it decodes is to be what it encoded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsipipe.models.device import trains_in_bf16
from wsipipe.models.threads import denormals_flushed
from wsipipe.models.vae import SMALL, VAE, VAEConfig, scaled
from wsipipe.settings import LoopSettings, PretrainSettings
from wsipipe.train.diffusion import normalise, reconstruction_loss
from wsipipe.train.feed import Batch, Patches, Steps, feed
from wsipipe.train.log import Log
from wsipipe.train.loop import Loop, constant_rate, learning_rate

NOISE = 3
"""Stream of the random numbers that latents are sampled with; see :mod:`wsipipe.train.feed` for the others."""
DIVERGENCE = 1e-6
"""Weight of the divergence from a normal distribution, as for Stable Diffusion's autoencoder."""
MEASURED = 8
"""Batches from which the spread of the latents is measured."""


def train_autoencoder(
    patches: Patches,
    indices: NDArray[np.int64],
    settings: PretrainSettings,
    loop_settings: LoopSettings,
    folder: Path,
    device: torch.device,
    report: Callable[[int, float, VAE], None] = lambda step, loss, averaged: None,
    config: VAEConfig = SMALL,
) -> VAE:
    """Train an autoencoder, resuming from *folder* when it holds a checkpoint; return the averaged one.

    Its ``scaling`` brings the latents of the corpus to a spread of 1.

    Parameters
    ----------
    patches, indices
        As in :class:`wsipipe.train.feed.Steps`.
    settings, loop_settings
        Of them ``l1`` and ``ssim`` weigh the parts of the loss.
    report : (step, loss, averaged autoencoder) -> None
        Called after every step.
    """
    torch.manual_seed(settings.seed)
    network = VAE(config).train().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rate = constant_rate if settings.schedule == "constant" else learning_rate
    log = Log(folder / "log.csv", ("step", "loss", "lr", "gradient"), header=True, board=folder / "tensorboard")
    loop = Loop(network, loop_settings, folder, rate, log)
    loop.restore()
    averaged = loop.ema.network
    assert isinstance(averaged, VAE)
    half = trains_in_bf16(settings.precision, device)

    def loss_of(given: tuple[int, int, Batch]) -> Tensor:
        step, part, batch = given
        image = normalise(batch.images.to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            mean, log_variance = network.moments(image)
            spread = (0.5 * log_variance.float()).exp()
            noise = np.random.default_rng((settings.seed, NOISE, step, part)).standard_normal(mean.shape, np.float32)
            sampled = mean + spread * torch.from_numpy(noise).to(device)
            found = network.decode(sampled * network.config.scaling)
        divergence: Tensor = 0.5 * (mean.float() ** 2 + spread**2 - 1 - log_variance.float()).sum() / len(image)
        return reconstruction_loss(found, image, settings.l1, settings.ssim) + DIVERGENCE * divergence

    def split(given: tuple[int, Batch]) -> list[tuple[int, int, Batch]]:
        step, batch = given
        return [(step, part, one) for part, one in enumerate(batch.split(settings.accumulate))]

    steps = Steps(patches, indices, settings.seed, settings.batch, range(settings.batch), settings.crop_share)
    batches = feed(steps, loop.step, settings.steps, settings.workers or 0, pin=device.type == "cuda")
    with denormals_flushed() if device.type == "cpu" else nullcontext():
        loop.run(
            lambda step: (step, next(batches)), loss_of, lambda step, loss: report(step, loss, averaged), split=split
        )
        log.close()
        return scaled(averaged, _scaling(averaged, steps, device))


@torch.no_grad()
def _scaling(network: VAE, steps: Steps, device: torch.device) -> float:
    """Return what brings the latents of the first batches to a spread of 1."""
    found = [network.moments(normalise(steps[step].images.to(device)))[0].float().cpu() for step in range(MEASURED)]
    return round(1 / max(1e-6, torch.cat(found).std().item()), 5)
