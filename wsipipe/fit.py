"""Fit a head on annotated images, on a frozen backbone or together with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsipipe.labels import Annotated, DatasetSpec
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.cmd import SIZES
from wsipipe.models.heads import HeadConfig
from wsipipe.settings import FitSettings
from wsipipe.train.augment import appearance, crop
from wsipipe.train.loop import Loop
from wsipipe.train.losses import Targets, head_loss
from wsipipe.train.targets import centre_map, class_map, directional_maps, whole_weight

Pool = list[tuple[DatasetSpec, list[Annotated]]]


def new_segmenter(settings: FitSettings) -> tuple[Segmenter, ModelCard]:
    """Return the network to fit and its card; a backbone from random weights starts with open gates."""
    torch.manual_seed(settings.seed)
    if settings.backbone in SIZES:
        config = SIZES[settings.backbone](0)
    else:
        config = checkpoint.read_card(Path(settings.backbone)).backbone
    widths = (*([2 * config.widths[0]] * 2), *([config.widths[0]] * 4))
    head = HeadConfig(settings.head, widths)
    card = ModelCard(settings.name, config, head, settings.working_mpp, licence=settings.licence)
    network = cast(Segmenter, checkpoint.build(card))
    if settings.backbone in SIZES:
        network.backbone.open_gates()
    else:
        source, _ = checkpoint.load(Path(settings.backbone))
        network.backbone.load_state_dict((source.backbone if isinstance(source, Segmenter) else source).state_dict())
    network.backbone.requires_grad_(settings.unfreeze or settings.backbone in SIZES)
    network.backbone.output.requires_grad_(False)  # the reconstruction's layers see no loss here
    return network, card


def sample(pool: Pool, size: int, settings: FitSettings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return one augmented crop: image uint8 (size, size, 3) and labels int32 (size, size)."""
    weights = np.array([spec.weight for spec, _ in pool])
    images = pool[rng.choice(len(pool), p=weights / weights.sum())][1]
    areas = np.array([a.labels.size * a.mpp**2 for a in images]) ** 0.5
    source = images[rng.choice(len(images), p=areas / areas.sum())]
    image, labels = crop(source, size, settings.working_mpp, rng, settings.augment)
    return appearance(image, rng, settings.augment), labels


def batch_of(step: int, pool: Pool, settings: FitSettings) -> tuple[Tensor, Targets]:
    """Return the images (B, 3, size, size) in [-1, 1] and targets of *step*; a function of (seed, step) alone."""
    late = step >= settings.loop.steps * (1 - settings.final_share)
    size = 256 if late else settings.crop
    count = max(1, round(settings.batch * (settings.crop / size) ** 2))
    rngs = [np.random.default_rng((settings.seed, step, i)) for i in range(count)]
    images, labels = zip(*(sample(pool, size, settings, rng) for rng in rngs))
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last), targets_of(labels)


def targets_of(labels: Sequence[NDArray[np.int32]]) -> Targets:
    """Return what a batch of crops with these label maps (H, W), -1 where not annotated, should predict."""
    known = [np.maximum(m, 0) for m in labels]
    classes = [np.where(m < 0, -1, class_map(k).astype(np.int64)) for m, k in zip(labels, known)]
    maps = (
        classes,
        [directional_maps(k) for k in known],
        [centre_map(k) for k in known],
        [whole_weight(m) for m in labels],
    )
    return Targets(*(torch.from_numpy(np.stack(m)) for m in maps))


def fit(
    pool: Pool,
    settings: FitSettings,
    folder: Path,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[Segmenter, ModelCard]:
    """Fit a segmenter on *pool*, resuming from *folder* when it holds a checkpoint; return the averaged network."""
    network, card = new_segmenter(settings)
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    loop = Loop(network, settings.loop, folder)
    loop.restore()
    frozen = not any(p.requires_grad for p in network.backbone.parameters())

    def loss_of(batch: tuple[Tensor, Targets]) -> Tensor:
        x, targets = batch
        with torch.set_grad_enabled(not frozen):
            features = network.backbone.features(x)
        return head_loss(settings.head, network.head(features), targets)

    averaged = loop.run(lambda step: batch_of(step, pool, settings), loss_of, report)
    return cast(Segmenter, averaged), card


def count_trainable(network: nn.Module) -> int:
    """Return the number of parameters that training changes."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def nuclei_in(pool: Sequence[tuple[DatasetSpec, list[Annotated]]]) -> int:
    """Return how many annotated nuclei *pool* holds."""
    return sum(int(a.labels.max(initial=0)) for _, images in pool for a in images)


def with_training(card: ModelCard, training: dict[str, Any]) -> ModelCard:
    """Return *card* with what it says of its training."""
    return replace(card, training=training)
