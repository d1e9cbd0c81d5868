"""Pretrain a backbone by masked diffusion on a corpus of patches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint as recomputed

from wsipipe.artifacts import atomic_write
from wsipipe.errors import SettingsError
from wsipipe.models.cmd import CMD, SIZES
from wsipipe.models.device import can_compile, choose_device, trains_in_bf16
from wsipipe.models.threads import denormals_flushed
from wsipipe.settings import LoopSettings, PretrainSettings
from wsipipe.train.diffusion import hide, normalise, reconstruction_loss
from wsipipe.train.distributed import ALONE, World
from wsipipe.train.feed import Batch, Patches, Steps, feed
from wsipipe.train.log import Log
from wsipipe.train.loop import Loop, constant_rate, learning_rate

COLUMNS = "step", "loss", "lr", "gradient"


@dataclass(frozen=True)
class Source:
    """What a backbone is trained on.

    Attributes
    ----------
    patches : Patches
    indices : int64 (n,)
        Those to train on.
    features : float32 (len(patches), D), optional
        The frozen encoder's feature of each patch.
    """

    patches: Patches
    indices: NDArray[np.int64]
    features: NDArray[np.float32] | None = None

    @property
    def condition(self) -> int:
        """Width of the features, 0 without."""
        return 0 if self.features is None else self.features.shape[1]


def loop_settings(settings: PretrainSettings) -> LoopSettings:
    """Return the part of *settings* that every training has."""
    names = "steps", "lr", "weight_decay", "warmup", "ema", "clip", "checkpoint_every"
    return LoopSettings(**{name: getattr(settings, name) for name in names})


def device_of(settings: PretrainSettings, world: World) -> torch.device:
    """Return the device of this process: with several processes, each has the GPU of its number.

    Where a process sees one GPU only, as SLURM may have it, that is its own.

    Raises
    ------
    SettingsError
        When there are more processes on this machine than GPUs.
    """
    device = choose_device(settings.device)
    if device.type != "cuda" or world.size == 1:
        return device
    count = torch.cuda.device_count()
    if count > 1 and world.local >= count:
        raise SettingsError(
            f"{world.local_size} processes on this machine, which has {count} GPUs; expected at most one for each: "
            f"torchrun --nproc-per-node {count}"
        )
    return torch.device("cuda", world.local if count > 1 else 0)


def samples_here(settings: PretrainSettings, world: World) -> range:
    """Return which samples of a step this process makes.

    Raises
    ------
    SettingsError
        When processes and passes do not share a batch evenly.
    """
    parts = world.size * settings.accumulate
    if settings.batch % parts:
        raise SettingsError(
            f"--batch {settings.batch} cannot be shared by {world.size} processes x {settings.accumulate} passes; "
            f"expected a multiple of {parts}"
        )
    size = settings.batch // world.size
    return range(world.rank * size, (world.rank + 1) * size)


def new_backbone(settings: PretrainSettings, condition: int) -> CMD:
    """Return a fresh backbone, a function of the seed."""
    torch.manual_seed(settings.seed)
    network = CMD(SIZES[settings.size](condition)).train()
    return cast(CMD, network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


class Objective:
    """The loss of a batch on a device.

    Parameters
    ----------
    network : nn.Module
        A :class:`CMD`, perhaps wrapped for several processes.
    """

    def __init__(self, network: nn.Module, source: Source, settings: PretrainSettings, device: torch.device) -> None:
        self.network, self.settings, self.device = network, settings, device
        self.features = source.features
        bf16 = trains_in_bf16(settings.precision, device)
        self.arithmetic = partial(torch.autocast, device.type, torch.bfloat16, enabled=bf16)

    def __call__(self, batch: Batch) -> Tensor:
        """Return the scalar loss."""
        early = self.device.type == "cuda"  # batches are pinned there; Metal would read memory that is freed
        image = normalise(batch.images.to(self.device, non_blocking=early))
        hidden = batch.hidden.to(self.device, non_blocking=early)
        t = batch.timesteps.to(self.device, non_blocking=early)
        with self.arithmetic():
            output = self.network(hide(image, hidden), t, self.condition(batch))
        return reconstruction_loss(output, image, self.settings.l1, self.settings.ssim)

    def condition(self, batch: Batch) -> Tensor | None:
        """Return the features (B, D) of the batch's patches."""
        if self.features is None:
            return None
        return torch.from_numpy(self.features[batch.indices.numpy()]).to(self.device)


def prepare(network: CMD, settings: PretrainSettings, device: torch.device) -> None:
    """Make the blocks of *network* recompute their activations and compile them, as *settings* ask.

    Each is compiled for the shapes that it sees, which never change: six of them, fewer than torch keeps for one piece
    of code before it gives up.
    """
    compiles = settings.compile == "on" or (settings.compile == "auto" and can_compile(device))
    for block in network.blocks():
        if settings.checkpoint_activations:
            block.forward = partial(recomputed, block.forward, use_reentrant=False)  # type: ignore[method-assign]
        if compiles:
            block.compile(dynamic=False)


def pretrain(
    source: Source,
    settings: PretrainSettings,
    folder: Path,
    world: World = ALONE,
    report: Callable[[int, float, CMD], None] = lambda step, loss, averaged: None,
) -> CMD:
    """Pretrain a backbone, resuming from *folder* when it holds a checkpoint; return the averaged backbone.

    Parameters
    ----------
    source : Source
    settings : PretrainSettings
    folder : Path
    world : World
        This process among those that train together, which are connected already.
    report : (step, loss, averaged backbone) -> None
        Called after every step.

    Raises
    ------
    SettingsError, DatasetError, OutputError
    """
    device = device_of(settings, world)
    network = new_backbone(settings, source.condition).to(device)
    rate = constant_rate if settings.schedule == "constant" else learning_rate
    log = Log(folder / "log.csv", COLUMNS, header=True, board=folder / "tensorboard")
    loop = Loop(network, loop_settings(settings), folder, rate, log, world)
    if loop.restore() and loop.step > settings.steps:
        raise SettingsError(f"{folder} is at step {loop.step:,} already; expected --steps of that or more")
    prepare(network, settings, device)
    parallel = DistributedDataParallel(network) if world.size > 1 else network
    share = samples_here(settings, world)
    steps = Steps(source.patches, source.indices, settings.seed, settings.batch, share, settings.crop_share)
    batches = feed(steps, loop.step, settings.steps, settings.workers or 0, pin=device.type == "cuda")
    averaged = cast(CMD, loop.ema.network)
    with denormals_flushed() if device.type == "cpu" else nullcontext():
        loop.run(
            lambda step: next(batches),
            Objective(parallel, source, settings, device),
            lambda step, loss: report(step, loss, averaged),
            split=lambda batch: batch.split(settings.accumulate),
            alone=parallel.no_sync if isinstance(parallel, DistributedDataParallel) else nullcontext,
            rescue=lambda batch: save_batch(batch, folder, world),
        )
    log.close()
    return averaged


def save_batch(batch: Batch, folder: Path, world: World) -> str:
    """Write this process's *batch* to *folder* and return a line that says so."""
    tensors = {name: tensor.contiguous() for name, tensor in batch._asdict().items()}
    with atomic_write(folder / f"bad-batch-{world.rank}.safetensors") as file:
        file.write(safetensors.torch.save(tensors))
    return f"the batch: {folder}/bad-batch-{'*' if world.size > 1 else world.rank}.safetensors"
