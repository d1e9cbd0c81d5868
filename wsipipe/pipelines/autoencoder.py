"""The story of `wsipipe pretrain --autoencoder`: a corpus of patches in, a folder with an autoencoder out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsipipe.corpus import Corpus
from wsipipe.errors import DatasetError, SettingsError
from wsipipe.models.vae import SMALL, VAE
from wsipipe.models.vae_files import write_vae
from wsipipe.schedule.progress import Progress, Reached
from wsipipe.settings import PretrainSettings
from wsipipe.train import pretraining as pretraining
from wsipipe.train.autoencoder import train_autoencoder
from wsipipe.train.distributed import ranks
from wsipipe.train.pictures import write_decoded

if TYPE_CHECKING:
    import torch

SHOWN = 6
"""Patches in the pictures."""


def check_autoencoder(settings: PretrainSettings) -> None:
    """Refuse what an autoencoder has no use for.

    Raises
    ------
    SettingsError
    """
    if settings.encoder or settings.space != "pixel" or settings.vae:
        raise SettingsError("--autoencoder trains no backbone; leave --encoder, --space and --vae out")
    if ranks().size > 1:
        raise SettingsError("--autoencoder trains in one process; start it without torchrun")


def run_autoencoder(
    corpus: Corpus, settings: PretrainSettings, out: Path, device: torch.device, progress: Progress
) -> Path:
    """Train an autoencoder in *out*, which is the folder that ``--vae`` takes; resume an interrupted run.

    Raises
    ------
    DatasetError
    """
    indices = corpus.indices(settings.split)
    if not len(indices):
        raise DatasetError(f"{corpus.path} holds no patch of the split {settings.split!r}; try --split all")
    shown = np.stack([corpus.read(int(i))[128:384, 128:384] for i in indices[:SHOWN]])
    progress.say(
        f"autoencoder of widths {', '.join(map(str, SMALL.widths))}: {settings.steps:,} steps of {settings.batch} "
        f"samples from {len(indices):,} patches"
    )
    progress.start("steps", settings.steps)
    steps = Reached(progress, "steps")

    def report(step: int, loss: float, averaged: VAE) -> None:
        done = step + 1
        steps(done)
        if done % settings.picture_every == 0 or done == settings.steps:
            write_decoded(out / "pictures" / f"step-{done:07d}.png", averaged, shown)

    loop = pretraining.loop_settings(settings)
    network = train_autoencoder(corpus, indices, settings, loop, out, device, report, SMALL)
    write_vae(out, network)
    return out
