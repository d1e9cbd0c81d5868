"""Tiles through a network in batches of one fixed shape: what maps, features and dense features have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsipipe.errors import ModelError
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.device import fetched, memory_watched, sent
from wsipipe.models.threads import denormals_flushed

Result = TypeVar("Result")
Arrays = list[NDArray[Any]]
Forward = Callable[[Tensor], Sequence[Tensor]]
"""From pixels, uint8 (B, h, w, 3) on the device, to tensors (B, ...)."""
Pack = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True, eq=False)
class Runner:
    """A device and the number of tiles that it takes at a time: always as many, so that a tile's numbers stay the same.

    Attributes
    ----------
    card : ModelCard
        Of the model, named in errors.
    batch : int
        Tiles per forward pass; the last one is padded with zeros.
    """

    card: ModelCard
    device: torch.device
    batch: int

    def run(self, tiles: NDArray[np.uint8], forward: Forward) -> Arrays:
        """Return what *forward* makes of all *tiles*, at least one.

        Raises
        ------
        SmallerBatch
            Out of device memory.
        ModelError
        """
        parts = in_batches(tiles, self.batch, lambda part: self.begin(part, forward))
        return [np.concatenate(same) for same in zip(*parts, strict=True)]

    @torch.inference_mode()
    def begin(self, tiles: NDArray[np.uint8], forward: Forward, pack: Pack = list) -> Callable[[], Arrays]:
        """Begin the forward pass of one batch, padded to the fixed shape; return what gives its arrays.

        A GPU forwards it while the next one is begun; a CPU is done when this returns.

        Parameters
        ----------
        tiles : uint8 (n, h, w, 3)
            At most :attr:`batch` of them.
        forward : pixels (B, h, w, 3) -> tensors (B, ...)
            Its tensors must hold finite numbers.
        pack : tensors -> tensors
            What is brought to the CPU of them.

        Raises
        ------
        SmallerBatch
            Out of device memory; what is returned may raise it too.
        """
        fixed = np.zeros((self.batch, *tiles.shape[1:]), np.uint8)
        fixed[: len(tiles)] = tiles
        with memory_watched(self.device, self.batch):
            pixels = sent(fixed, self.device)
            with denormals_flushed():
                found = forward(pixels)
            sound = fetched(torch.stack([torch.stack(tensor.aminmax()).isfinite().all() for tensor in found]).all())
            whole = [fetched(tensor) for tensor in pack(found)]

        def finish() -> Arrays:
            with memory_watched(self.device, self.batch):  # what goes wrong on a GPU shows when it is waited for
                check_numbers(bool(sound()), self.card)
                return [array()[: len(tiles)] for array in whole]

        return finish


def in_batches(
    tiles: NDArray[np.uint8], batch: int, begin: Callable[[NDArray[np.uint8]], Callable[[], Result]]
) -> Iterator[Result]:
    """Yield what *begin* leads to for each batch of *tiles*; the next one is begun before one is waited for."""
    before: Callable[[], Result] | None = None
    for start in range(0, len(tiles), batch):
        begun = begin(tiles[start : start + batch])
        if before:
            yield before()
        before = begun
    if before:
        yield before()


def check_numbers(sound: bool, card: ModelCard) -> None:
    """Refuse what a network found when it is not *sound*: NaN or infinity would pass for nothing found.

    Raises
    ------
    ModelError
    """
    if not sound:
        raise ModelError(f"the network of {card.name} gives no numbers (NaN or infinity); its training has diverged")
