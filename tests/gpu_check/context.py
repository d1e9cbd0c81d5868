"""What every section of the check shares: the device, how large to measure, the time that is left, and networks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tests import tiny
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.cmd import CMDConfig
from wsipipe.models.device import native_bf16
from wsipipe.models.heads import HeadConfig
from wsipipe.models.zoo import resolve

SMALLEST = CMDConfig((4, 4, 4, 8, 8, 16))
"""Of the networks in the small check: every part of the real ones."""


@dataclass(frozen=True)
class Sizes:
    """How large the check is.

    Attributes
    ----------
    networks : mapping of str to CMDConfig
        What is measured, by name.
    batches : tuple of int
        Tiles per forward pass that are tried.
    seconds : float
        For each rate.
    side : int
        Of the slide that is segmented, in px at 0.5 µm/px.
    readers : tuple of int
        Reading threads that are tried.
    steps : int
        Of the trainings.
    whole : str
        The model of whole runs, which must find cells: a shipped one, or "" for the first network, shaken.
    """

    networks: dict[str, CMDConfig]
    batches: tuple[int, ...]
    seconds: float
    side: int
    readers: tuple[int, ...]
    steps: int
    whole: str = ""


@dataclass(frozen=True, eq=False)
class Context:
    """Where the check runs, and with what.

    Attributes
    ----------
    started, limit : float
        When it began (of time.monotonic), and after how many seconds no section is begun any more.
    """

    device: torch.device
    folder: Path
    sizes: Sizes
    started: float
    limit: float

    @property
    def left(self) -> float:
        """Seconds until no section is begun any more."""
        return self.limit - (time.monotonic() - self.started)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is an NVIDIA GPU."""
        return self.device.type == "cuda"

    @cached_property
    def dtype(self) -> torch.dtype:
        """The arithmetic of inference: that of ``--precision auto``."""
        return torch.bfloat16 if native_bf16(self.device) else torch.float32

    def model(self, name: str) -> Path:
        """Return a checkpoint with random weights of the network *name*, every gate open."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            config = replace(self.sizes.networks[name], condition=0)
            w = config.widths
            card = ModelCard(name, config, HeadConfig("cisca", (2 * w[0],) * 2 + (w[0],) * 4), licence="CC0-1.0")
            torch.manual_seed(0)
            network = checkpoint.build(card)
            assert isinstance(network, Segmenter)
            network.backbone.open_gates()
            if not self.sizes.whole:
                tiny.shake(network)
            checkpoint.save(path, network, card)
        return path

    @property
    def whole(self) -> Path:
        """The checkpoint of whole runs."""
        return resolve(self.sizes.whole) if self.sizes.whole else self.model(next(iter(self.sizes.networks)))

    def wait(self) -> None:
        """Wait until the device has done all that was asked."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds_of(self, work: Callable[[], Any], warm: int = 2) -> float:
        """Return the seconds that *work* takes, on average over as many times as fit the time for a rate."""
        for _ in range(warm):
            work()
        self.wait()
        start, times = time.perf_counter(), 0
        while time.perf_counter() - start < self.sizes.seconds or not times:
            work()
            times += 1
            if times % 4 == 0:
                self.wait()
        self.wait()
        return (time.perf_counter() - start) / times

    def peak(self) -> int | None:
        """Return the most memory of the GPU that tensors took since the last call, in MiB; None on a CPU."""
        if not self.on_gpu:
            return None
        most = torch.cuda.max_memory_allocated(self.device) // 2**20
        torch.cuda.reset_peak_memory_stats(self.device)
        return int(most)
