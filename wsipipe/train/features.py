"""The frozen encoder's feature of every patch, computed once and kept in the corpus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsipipe.models.conditioning import encoder_name, open_encoder
from wsipipe.train.distributed import World
from wsipipe.train.feed import Patches, loading

BATCH = 32
"""Patches per forward pass of the encoder."""


class Cache(Patches, Protocol):
    """A corpus that keeps features."""

    def features(self, name: str) -> NDArray[np.float32] | None:
        """Return float32 (n, D), None when there are none of that name."""
        ...

    def add_features(self, name: str, array: NDArray[np.float32]) -> None:
        """Keep *array*, whole or not at all."""
        ...


class _Whole(Dataset[Tensor]):
    """Patches as they are, by number."""

    def __init__(self, patches: Patches) -> None:
        self.patches = patches

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.patches.read(index)))


def features_of(
    corpus: Cache,
    source: str,
    device: torch.device,
    world: World,
    workers: int = 0,
    report: Callable[[int], None] = lambda patches: None,
    token: str = "class",
) -> NDArray[np.float32]:
    """Return the features of all patches, float32 (n, D), from the corpus or else from the encoder, and cache them.

    Each of several processes encodes its share.

    Parameters
    ----------
    source : str
        See :func:`wsipipe.models.conditioning.open_encoder`.
    report : int -> None
        Hears how many patches have been encoded.
    token : {'class', 'patch'}
        Which token of an image is its feature.
    """
    name = cache_name(source, token)
    kept = corpus.features(name)
    if kept is not None:
        return kept
    mine = _encode(corpus, source, device, range(world.rank, len(corpus), world.size), workers, report, token)
    shares = _gathered(mine, world)
    if world.main:
        whole = np.empty((len(corpus), mine.shape[1]), np.float32)
        for rank, share in enumerate(shares):
            whole[rank :: world.size] = share
        corpus.add_features(name, whole)
    world.wait()
    return cast(NDArray[np.float32], corpus.features(name))


def cache_name(source: str, token: str) -> str:
    """Return the name under which the features of *source* are cached."""
    return encoder_name(source) + ("" if token == "class" else f"+{token}")


def _encode(
    patches: Patches,
    source: str,
    device: torch.device,
    share: range,
    workers: int,
    report: Callable[[int], None],
    token: str,
) -> NDArray[np.float32]:
    encoder = open_encoder(source, device, token)
    loader: DataLoader[Tensor] = DataLoader(
        _Whole(patches), BATCH, sampler=cast(Any, share), pin_memory=device.type == "cuda", **loading(workers)
    )
    found = []
    for images in loader:
        found.append(encoder(images))
        report(len(images))
    return np.concatenate(found)


def _gathered(mine: NDArray[np.float32], world: World) -> list[NDArray[np.float32]]:
    """Return the arrays of all processes, on the first one."""
    if world.size == 1:
        return [mine]
    shares: list[Any] | None = [None] * world.size if world.main else None
    dist.gather_object(mine, shares)
    return shares or []
