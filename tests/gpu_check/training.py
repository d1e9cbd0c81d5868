"""Samples per second of pretraining and of fitting, and whether both go on from a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tests import tiny
from tests.gpu_check.context import Context
from wsipipe.labels import Annotated, DatasetSpec
from wsipipe.models import checkpoint, cmd
from wsipipe.models.device import free_memory, out_of_memory
from wsipipe.settings import FitSettings, LoopSettings, PretrainSettings
from wsipipe.train.fitting import fit
from wsipipe.train.pretraining import Source, pretrain

Row = dict[str, Any]


class Watch:
    """Notes when each step is done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, step: int, loss: float, *rest: Any) -> None:
        self.times.append(time.perf_counter())

    def rate(self, batch: int) -> float:
        """Return samples per second over the second half of the steps."""
        half = len(self.times) // 2
        return round(batch * (len(self.times) - 1 - half) / max(1e-9, self.times[-1] - self.times[half]), 1)


def pretraining(context: Context) -> Iterator[Row]:
    """Yield samples per second of each network, in eager mode, and whether a run goes on from its checkpoint."""
    source = Source(tiny.Patches(16), np.arange(16))
    batch = 32 if context.on_gpu else 2
    known = dict(cmd.SIZES)
    try:
        for name, config in context.sizes.networks.items():
            cmd.SIZES[name] = lambda condition=0, config=config: replace(config, condition=condition)
            settings = PretrainSettings(
                size=name, steps=context.sizes.steps, batch=batch, device=str(context.device), compile="off",
                checkpoint_every=max(1, context.sizes.steps // 2),
            )  # fmt: skip
            context.peak()
            try:
                yield {"network": name, "batch": batch} | _pretrained(context, source, settings)
            except Exception as error:
                if not isinstance(error, RuntimeError) or not out_of_memory(error):
                    raise
                yield {"network": name, "batch": batch, "note": "does not fit the memory"}
            free_memory(context.device)
    finally:
        cmd.SIZES.clear()
        cmd.SIZES.update(known)


def _pretrained(context: Context, source: Source, settings: PretrainSettings) -> Row:
    folder = context.folder / f"pretrain-{settings.size}"
    folder.mkdir()
    watch = Watch()
    once = pretrain(source, replace(settings, schedule="constant"), folder, report=watch)
    longer, more = replace(settings, schedule="constant", steps=settings.steps + 2), Watch()
    again = pretrain(source, longer, folder, report=more)
    moved = any(not torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True))
    return {"samples/s": watch.rate(settings.batch), "peak MiB": context.peak(),
            "resumed": len(more.times) == 2 and moved}  # fmt: skip


def fitting(context: Context) -> Iterator[Row]:
    """Yield crops per second of fitting the first network: whole, and its head alone on the frozen backbone."""
    labels = tiny.disc_labels(320, (60, 60, 12), (150, 60, 12), (80, 180, 14), (250, 290, 10))
    image = np.where(labels[..., None] > 0, (120, 80, 160), (235, 200, 225)).astype(np.uint8)
    pool = [(DatasetSpec("discs"), [Annotated("a", "a", image, labels, 0.5)])]
    name, batch = next(iter(context.sizes.networks)), 16 if context.on_gpu else 2
    network, card = checkpoint.load(context.model(name))
    checkpoint.save(context.folder / "b.safetensors", network.backbone, replace(card, head=None))  # type: ignore
    for unfreeze in (True, False):
        folder = context.folder / f"fit-{unfreeze}"
        folder.mkdir()
        settings = FitSettings(
            backbone=str(context.folder / "b.safetensors"), unfreeze=unfreeze, batch=batch, crop=128, final_share=0,
            device=str(context.device), loop=LoopSettings(steps=context.sizes.steps, warmup=1),
        )  # fmt: skip
        watch = Watch()
        context.peak()
        fit(pool, settings, folder, watch)
        mode = "whole network" if unfreeze else "frozen backbone"
        yield {"network": name, "mode": mode, "batch": batch, "crops/s": watch.rate(batch), "peak MiB": context.peak()}
