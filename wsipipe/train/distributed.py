"""One process or many: who this process is, as ``torchrun`` says, and what the processes do together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """The processes that train together.

    Attributes
    ----------
    rank : int
        Number of this process.
    size : int
        How many there are.
    local : int
        Number of this process on its machine, which is that of its GPU.
    local_size : int
        How many are on this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of *value* over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.size
        return value

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()
"""A process that trains by itself."""


def ranks() -> World:
    """Return the world that the environment names (``torchrun`` sets it); a single process elsewhere."""
    names = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
    if "WORLD_SIZE" not in os.environ:
        return ALONE
    return World(*(int(os.environ.get(name, default)) for name, default in zip(names, ("0", "1", "0", "1"))))


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[World]:
    """Connect the processes for the duration of the block: NCCL between GPUs, gloo between CPUs.

    Between GPUs, what lies in the CPU's memory goes over gloo all the same: the encoder's features of a whole corpus
    would not fit a GPU, and a barrier would have to guess which GPU is this process's.
    """
    if world.size == 1:
        yield world
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield world
    finally:
        dist.destroy_process_group()
