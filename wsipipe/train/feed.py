"""Batches of masked views, read ahead by worker processes.

A sample is a function of (seed, step, index) alone: neither workers nor processes nor a resume change it.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsipipe.artifacts.system import start_method
from wsipipe.train.diffusion import CELLS, Image, draw

ORDER, SAMPLE = 1, 2
"""What a seed is used for: no two generators share a stream."""


class Patches(Protocol):
    """What training needs of a corpus."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Image:
        """Return patch *index*, uint8 (512, 512, 3)."""
        ...


class Batch(NamedTuple):
    """Inputs of one step, before normalisation.

    Attributes
    ----------
    images : uint8 (B, 256, 256, 3)
    timesteps : int64 (B,)
    hidden : bool (B, 32, 32)
        Masked squares.
    indices : int64 (B,)
        Patches of the corpus.
    """

    images: Tensor
    timesteps: Tensor
    hidden: Tensor
    indices: Tensor

    def split(self, parts: int) -> list[Batch]:
        """Return *parts* batches of equal size."""
        return [Batch(*tensors) for tensors in zip(*(tensor.chunk(parts) for tensor in self))]


class Steps(Dataset[Batch]):
    """The batch of each step, or one process's share of it.

    Parameters
    ----------
    patches : Patches
    indices : int64 (n,)
        Patches to draw from; each is seen once before any is seen again.
    seed, batch : int
        *batch* counts the samples of a step over all processes.
    share : range
        Which samples of a step to make.
    cells : int
        Squares along a side of a mask.
    """

    def __init__(
        self,
        patches: Patches,
        indices: NDArray[np.int64],
        seed: int,
        batch: int,
        share: range,
        crop_share: float,
        cells: int = CELLS,
    ) -> None:
        self.cells = cells
        self.patches, self.indices, self.seed, self.batch, self.share = patches, indices, seed, batch, share
        self.crop_share = crop_share
        self._order = functools.partial(_order, seed, len(indices))

    def chosen(self, step: int, index: int) -> int:
        """Return the patch that sample *index* of *step* shows."""
        epoch, place = divmod(step * self.batch + index, len(self.indices))
        return int(self.indices[self._order(epoch)[place]])

    def __getitem__(self, step: int) -> Batch:
        chosen = [self.chosen(step, index) for index in self.share]
        rngs = [np.random.default_rng((self.seed, SAMPLE, step, index)) for index in self.share]
        samples = [draw(self.patches.read(patch), rng, self.crop_share, self.cells) for patch, rng in zip(chosen, rngs)]
        images, timesteps, hidden = zip(*samples)
        return Batch(
            torch.from_numpy(np.stack(images)),
            torch.tensor(timesteps),
            torch.from_numpy(np.stack(hidden)),
            torch.tensor(chosen),
        )


@functools.lru_cache(maxsize=2)
def _order(seed: int, count: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch, a permutation of range(count)."""
    return np.random.default_rng((seed, ORDER, epoch, 0)).permutation(count)


def feed(steps: Steps, start: int, stop: int, workers: int = 0, pin: bool = False) -> Iterator[Batch]:
    """Yield the batches of steps *start* to *stop* in order, made ahead by *workers* processes (0: when asked for)."""
    order = cast(Any, range(start, stop))
    loader: DataLoader[Batch] = DataLoader(steps, None, sampler=order, pin_memory=pin, **loading(workers))
    yield from loader


def loading(workers: int) -> dict[str, Any]:
    """Return the arguments of a DataLoader that reads ahead with *workers* processes.

    They are forked from a server that has imported the libraries and nothing else, not from here: an open corpus has
    threads, which a fork would lose.
    """
    if not workers:
        return {}
    context = multiprocessing.get_context(start_method())
    if start_method() == "forkserver":
        context.set_forkserver_preload(["wsipipe.corpus", __name__])
    return {"num_workers": workers, "prefetch_factor": 2, "multiprocessing_context": context}
