"""Fit a head on annotated images, on a frozen backbone or together with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from wsipipe.errors import DatasetError, SettingsError
from wsipipe.labels import Annotated, DatasetSpec
from wsipipe.models import adapters
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.device import choose_device, trains_in_bf16
from wsipipe.models.folded import FoldedSegmenter
from wsipipe.models.heads import Cascade
from wsipipe.models.intact import digest_of
from wsipipe.models.threads import denormals_flushed
from wsipipe.settings import FitSettings
from wsipipe.train.beginning import new_segmenter
from wsipipe.train.cached import feature_cache
from wsipipe.train.log import Log
from wsipipe.train.loop import Loop
from wsipipe.train.losses import Targets, head_loss, type_loss
from wsipipe.train.probe import check_probe, fit_probe
from wsipipe.train.samples import Pool, batch_of, colours_in, normalised, planned, targets_of, type_weights, types_in

__all__ = ["Pool", "Watch", "batch_of", "count_trainable", "fit", "new_segmenter", "nuclei_in", "targets_of"]

Batch = tuple[Tensor | list[Tensor], Targets]
"""Images (B, 3, H, W) or their feature maps, and targets."""


class Watch(Protocol):
    """What looks at the averaged network from time to time."""

    def rewind(self, step: int) -> None:
        """Forget what was seen after *step*: the training goes on from there."""

    def __call__(self, step: int, network: Segmenter, card: ModelCard) -> None:
        """Look at the average after *step* steps."""


class Fitting:
    """A network on its device, what of it is trained, and how a batch becomes a loss.

    A frozen backbone is in eval mode, folded as at inference, and gets no gradient; only the head is trained, averaged
    and checkpointed.
    """

    def __init__(self, network: Segmenter, settings: FitSettings, weights: Tensor | None) -> None:
        self.settings, self.device = settings, choose_device(settings.device)
        self.network = network.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.weights = None if weights is None else weights.to(self.device)
        self.trained: nn.Module = network
        if settings.frozen:
            network.backbone.eval()
            self.trained, self._folded = network.head, FoldedSegmenter(network)

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass: bf16 autocast where asked for, or on a GPU that has it."""
        half = trains_in_bf16(self.settings.precision, self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def extract(self, x: Tensor) -> list[Tensor]:
        """Return the frozen backbone's features of images (B, 3, H, W)."""
        with torch.no_grad(), denormals_flushed(), self.arithmetic():
            return self._folded.features(x.to(self.device))

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch of images, or of frozen features."""
        given, targets = batch
        with self.arithmetic():
            features = self._features(given)
            found = [(1.0, self.network.head(features)), *self.network.head.others(features)]
        told = targets.to(self.device)
        losses = [weight * head_loss(self.settings.head, logits, told, self.weights) for weight, logits in found]
        return torch.stack(losses).sum()

    def _features(self, given: Tensor | list[Tensor]) -> list[Tensor]:
        """Return the backbone's features of images; frozen ones may be *given* as they are."""
        if isinstance(given, list):
            return [f.to(self.device) for f in given]
        if self.settings.frozen:
            return self.extract(given)
        return cast(list[Tensor], self.network.backbone.features(given.to(self.device)))

    def share(self, name: str) -> float:
        """Return the learning rate of a parameter as a share of the head's."""
        return self.settings.backbone_lr if name.startswith("backbone.") else 1.0

    def segmenter(self, averaged: nn.Module) -> Segmenter:
        """Return the whole averaged network in eval mode."""
        whole = Segmenter(self.network.backbone, averaged) if self.settings.frozen else averaged  # type: ignore[arg-type]
        return adapters.merged(cast(Segmenter, whole)).eval()


class TypeFitting(Fitting):
    """Trains the layer that tells types alone; whatever else there is stays."""

    def __init__(self, network: Segmenter, settings: FitSettings, weights: Tensor | None) -> None:
        super().__init__(network, settings, weights)
        network.eval()
        self.trained = cast(nn.Module, network.head.types)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the types of a batch of images, or of frozen features."""
        given, targets = batch
        with self.arithmetic():
            features = self._features(given)
            logits = self.network.head.enlarged(self.trained(features), features)
        assert targets.types is not None and self.weights is not None  # as there are types
        return type_loss(logits.float(), targets.types.to(self.device), self.weights)

    def segmenter(self, averaged: nn.Module) -> Segmenter:
        """Return the network with the averaged layer, the odds of its types brought back to how often they occur.

        Rare types weighed more while they were learned, as if there were more of them.
        """
        layer = cast(Cascade, self.network.head.types)
        layer.load_state_dict(averaged.state_dict())
        if self.weights is not None:
            with torch.no_grad():
                cast(Tensor, layer.levels[0].bias)[-len(self.weights) :] -= self.weights.log()
        return cast(Segmenter, self.network.eval())


def fit(
    pool: Pool,
    settings: FitSettings,
    folder: Path,
    report: Callable[[int, float], None] = lambda step, loss: None,
    watch: Watch | None = None,
    cached: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Segmenter, ModelCard]:
    """Fit a segmenter on *pool*, resuming from *folder* when it holds a checkpoint; return the averaged network.

    Parameters
    ----------
    pool : list of (DatasetSpec, list of Annotated)
    settings : FitSettings
    folder : Path
        Of checkpoint, log and feature cache.
    report : (step, loss) -> None
        Called after every step.
    watch : Watch, optional
        Called every ``validate_every`` steps and after the last.
    cached : (crops done, crops in all) -> None
        Called while frozen features are computed.

    Raises
    ------
    DatasetError
        When the loss is not finite.
    SettingsError
        When features are to be kept of a backbone that changes.
    OutputError
    """
    settings, types = planned(settings, pool), types_in(pool, settings.types)
    if settings.loop.optimiser == "lbfgs":
        check_probe(settings)
    network, card = new_segmenter(settings, types)
    if not settings.types_only:
        card = replace(card, colours=colours_in(pool, settings.working_mpp), normalise=settings.normalise)
    if card.normalise:
        if not card.colours:
            raise DatasetError("--normalise: the training images show no colours to bring slides to; leave it out")
        pool = normalised(pool, card.colours, settings.working_mpp)
    fitting = (TypeFitting if settings.types_only else Fitting)(
        network, settings, type_weights(pool, types) if types else None
    )
    if not settings.types_only:
        card = with_training(card, {"trainable": count_trainable(fitting.trained)})
    if settings.loop.optimiser == "lbfgs":
        network = _at_optimum(fitting, pool, types, folder, report, cached)
        if watch:
            watch.rewind(0)
            watch(1, network, card)
        return network, card
    batch = _batches(fitting, pool, types, folder, cached)
    loop = Loop(fitting.trained, settings.loop, folder, share=fitting.share)
    loop.restore()
    if watch:
        watch.rewind(loop.step)

    def told(step: int, loss: float) -> None:
        report(step, loss)
        if watch and (step + 1 == settings.loop.steps or (step + 1) % settings.validate_every == 0):
            watch(step + 1, fitting.segmenter(loop.ema.network), card)

    averaged = loop.run(batch, fitting.loss, told)
    return fitting.segmenter(averaged), card


def _at_optimum(
    fitting: Fitting,
    pool: Pool,
    types: Sequence[str],
    folder: Path,
    report: Callable[[int, float], None],
    cached: Callable[[int, int], None],
) -> Segmenter:
    """Return the segmenter whose linear head is at its optimum."""
    log = Log(folder / "log.csv", ("step", "loss"))
    log.rewind(0)

    def told(step: int, loss: float) -> None:
        log.write({"step": step + 1, "loss": loss})
        report(step, loss)

    head = fitting.network.head
    fit_probe(head, fitting.extract, pool, fitting.settings, types, cached, told)
    return fitting.segmenter(head)


def _batches(
    fitting: Fitting, pool: Pool, types: Sequence[str], folder: Path, cached: Callable[[int, int], None]
) -> Callable[[int], Batch]:
    """Return what gives the batch of a step: crops drawn anew, or rows of the feature cache."""
    settings = fitting.settings
    if not settings.cache_features:
        return lambda step: batch_of(step, pool, settings, types)
    if not settings.frozen:
        raise SettingsError("--cache-features needs a frozen backbone; leave it out, or add --no-unfreeze")
    weights = digest_of(fitting.network.backbone.state_dict())
    return feature_cache(folder / "features", pool, settings, types, fitting.extract, cached, weights).batch


def count_trainable(network: nn.Module) -> int:
    """Return the number of parameters that training changes."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def nuclei_in(pool: Sequence[tuple[DatasetSpec, list[Annotated]]]) -> int:
    """Return how many annotated nuclei *pool* holds."""
    return sum(int(a.labels.max(initial=0)) for _, images in pool for a in images)


def with_training(card: ModelCard, training: dict[str, Any]) -> ModelCard:
    """Return *card* with what it says of its training."""
    return replace(card, training=training)
