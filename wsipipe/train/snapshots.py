"""What a pretraining leaves behind: the card of its backbone, and snapshots and pictures on the way."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsipipe.models import checkpoint
from wsipipe.models.backbone import Backbone
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.conditioning import encoder_name
from wsipipe.models.space import InLatents
from wsipipe.settings import PretrainSettings
from wsipipe.train.diffusion import PATCH
from wsipipe.train.feed import Patches
from wsipipe.train.pictures import write_reconstructions
from wsipipe.train.pretraining import Source

SHOWN = 4
"""Patches in the pictures."""


class Described(Patches, Protocol):
    """Patches that say which split they are of, and at which resolution."""

    @property
    def fingerprint(self) -> str:
        """What tells this corpus from others."""
        ...

    @property
    def table(self) -> Any:
        """A row for each patch."""
        ...

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the numbers of the patches of *split*."""
        ...


def card_of(settings: PretrainSettings, corpus: Described, source: Source, backbone: Backbone) -> ModelCard:
    """Return the backbone's card, which says on what and how it was trained."""
    mpp = np.asarray(corpus.table["mpp"], float)[source.indices]
    training: dict[str, Any] = {
        "objective": "masked diffusion",
        "corpus": {"fingerprint": corpus.fingerprint, "patches": len(source.indices)},
        "mpp": {"least": float(mpp.min()), "median": float(np.median(mpp)), "most": float(mpp.max())},
        "steps": settings.steps,
        "seed": settings.seed,
        **({"encoder": encoder_name(settings.encoder)} if settings.encoder else {}),
        "settings": asdict(settings),
    }
    space = backbone.space.config if isinstance(backbone, InLatents) else None
    return ModelCard(
        settings.name,
        backbone.config,
        mpp=float(np.median(mpp)),
        licence=settings.licence,
        training=training,
        space=space,
    )


class Snapshots:
    """Writes a picture of the averaged backbone now and then, and the backbone itself after steps that were named."""

    def __init__(self, folder: Path, settings: PretrainSettings, corpus: Described, source: Source) -> None:
        self.folder, self.settings, self.corpus, self.source = folder, settings, corpus, source
        unseen = corpus.indices("val")
        pool = unseen if len(unseen) and settings.split == "train" else source.indices
        shown = pool[np.unique(np.linspace(0, len(pool) - 1, SHOWN).astype(int))]
        low, high = PATCH // 4, PATCH - PATCH // 4
        self.images = np.stack([corpus.read(int(i))[low:high, low:high] for i in shown])
        self.features = None if source.features is None else source.features[shown]

    def __call__(self, done: int, averaged: Backbone) -> None:
        """Write what is due after *done* steps."""
        settings = self.settings
        if done in settings.snapshot_steps:
            card = card_of(replace(settings, steps=done), self.corpus, self.source, averaged)
            checkpoint.save(self.folder / f"backbone-{done}.safetensors", averaged, card)
        if done % settings.picture_every == 0 or done == settings.steps:
            path = self.folder / "pictures" / f"step-{done:07d}.png"
            write_reconstructions(path, averaged, self.images, self.features)
