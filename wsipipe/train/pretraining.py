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
from wsipipe.models import backbone_kinds
from wsipipe.models.backbone import Backbone, initialise
from wsipipe.models.device import can_compile, choose_device, trains_in_bf16
from wsipipe.models.space import ENLARGED, InLatents, Latents, Pixels, Space, SpaceConfig
from wsipipe.models.threads import denormals_flushed
from wsipipe.models.vae_files import read_vae
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


def open_space(settings: PretrainSettings) -> Space:
    """Return what the backbone is to fill in.

    Raises
    ------
    SettingsError, ModelNotFound, NotAModel
    """
    if settings.space == "pixel":
        if settings.vae:
            raise SettingsError("--vae is for --space vae or vae-512; leave it out, or give one of these")
        return Pixels()
    if not settings.vae:
        raise SettingsError(f"--space {settings.space} needs an autoencoder; give its folder with --vae")
    if settings.ssim:
        raise SettingsError("--ssim compares pictures, and --space has the backbone fill in latents; leave --ssim out")
    vae = read_vae(Path(settings.vae))
    return Latents(SpaceConfig(vae.config, ENLARGED[settings.space]), vae)


def new_backbone(settings: PretrainSettings, condition: int, space: Space | None = None) -> Backbone:
    """Return a fresh backbone, a function of the seed."""
    torch.manual_seed(settings.seed)
    try:
        config = backbone_kinds.sized(settings.backbone, settings.size, condition)
        if isinstance(space, Latents):
            config = config.in_latents(space.channels)
    except ValueError as error:
        raise SettingsError(f"--backbone {settings.backbone}: {error}; leave --encoder and --space out") from error
    network = backbone_kinds.build(config).train()
    initialise(network, settings.init)
    return cast(Backbone, network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


class Objective:
    """The loss of a batch on a device.

    Parameters
    ----------
    network : nn.Module
        A backbone, perhaps wrapped for several processes.
    """

    def __init__(
        self,
        network: nn.Module,
        source: Source,
        settings: PretrainSettings,
        device: torch.device,
        space: Space | None = None,
    ) -> None:
        self.network, self.settings, self.device = network, settings, device
        self.space = space.to(device) if isinstance(space, Latents) else Pixels()
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
            image = self.space.encode(image)
            output = self.network(hide(image, hidden), t, self.condition(batch))
        return reconstruction_loss(output, image, self.settings.l1, self.settings.ssim)

    def condition(self, batch: Batch) -> Tensor | None:
        """Return the features (B, D) of the batch's patches."""
        if self.features is None:
            return None
        return torch.from_numpy(self.features[batch.indices.numpy()]).to(self.device)


def prepare(network: Backbone, settings: PretrainSettings, device: torch.device) -> None:
    """Make the blocks of *network* recompute their activations and compile them, as *settings* ask.

    Each is compiled for the shapes that it sees, which never change: six of them, fewer than torch keeps for one piece
    of code before it gives up.
    """
    compiles = settings.compile == "on" or (settings.compile == "auto" and can_compile(device))
    for block in network.blocks():
        if settings.checkpoint_activations:
            block.forward = partial(recomputed, block.forward, use_reentrant=False)
        if compiles:
            block.compile(dynamic=False)


def pretrain(
    source: Source,
    settings: PretrainSettings,
    folder: Path,
    world: World = ALONE,
    report: Callable[[int, float, Backbone], None] = lambda step, loss, averaged: None,
) -> Backbone:
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
    space = open_space(settings)
    network = new_backbone(settings, source.condition, space).to(device)
    rate = constant_rate if settings.schedule == "constant" else learning_rate
    log = Log(folder / "log.csv", COLUMNS, header=True, board=folder / "tensorboard")
    loop = Loop(network, loop_settings(settings), folder, rate, log, world)
    if loop.restore() and loop.step > settings.steps:
        raise SettingsError(f"{folder} is at step {loop.step:,} already; expected --steps of that or more")
    prepare(network, settings, device)
    parallel = DistributedDataParallel(network) if world.size > 1 else network
    share = samples_here(settings, world)
    steps = Steps(
        source.patches, source.indices, settings.seed, settings.batch, share, settings.crop_share, space.cells
    )
    batches = feed(steps, loop.step, settings.steps, settings.workers or 0, pin=device.type == "cuda")
    averaged = cast(Backbone, loop.ema.network)
    if isinstance(space, Latents):
        averaged = InLatents(space.to(device), averaged)
    with denormals_flushed() if device.type == "cpu" else nullcontext():
        loop.run(
            lambda step: next(batches),
            Objective(parallel, source, settings, device, space),
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
