"""Tiles to maps of where nuclei are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsipipe.errors import ModelError
from wsipipe.infer.runner import Runner, in_batches
from wsipipe.models import checkpoint
from wsipipe.models.backbone import TILE
from wsipipe.models.checkpoint import Segmenter
from wsipipe.models.device import BATCH, SmallerBatch, choose_device, choose_dtype
from wsipipe.models.engines import engine_for
from wsipipe.models.folded import FoldedSegmenter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything numerical that the bytes of a map depend on besides slide and model; part of every fingerprint."""

    device: str
    dtype: str
    engine: str
    version: str
    batch: int


class Predictor:
    """A segmenter on a device, with one fixed batch shape.

    Parameters
    ----------
    path : Path
        Checkpoint of a segmenter.
    device, precision : str
        As in :class:`wsipipe.settings.RunSettings`.
    batch : int
        Tiles per forward pass; 0 takes the device's default.
    engine : str
        What computes the network, by its name in :data:`wsipipe.models.engines.ENGINES`.

    Attributes
    ----------
    names : tuple of str
        Names of the maps, in order.
    recipe : Recipe
    """

    def __init__(
        self, path: Path, device: str = "auto", precision: str = "auto", batch: int = 0, engine: str = "torch"
    ) -> None:
        network, self.card = checkpoint.load(path)
        if not isinstance(network, Segmenter):
            raise ModelError(f"{path} is a backbone without a head; fit one with `wsipipe fit`, or name a segmenter")
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.batch = batch or BATCH[self.device.type]
        self.runner = Runner(self.card, self.device, self.batch)
        self.names = network.head.map_names
        self.engine = engine_for(engine, self.device, self.dtype)
        chosen, dtype = self.engine, str(self.dtype).removeprefix("torch.")
        self.recipe = Recipe(self.device.type, dtype, chosen.name_on(self.device), chosen.version(), self.batch)
        self.use(network)

    def use(self, network: Segmenter) -> None:
        """Let *network* make the maps from here on."""
        folded = FoldedSegmenter(network)
        self.network = folded.to(self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        example = torch.zeros(self.batch, 3, TILE, TILE, device=self.device, dtype=self.dtype)
        self.forward = self.engine.make(self.network, example.to(memory_format=torch.channels_last))

    def maps(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the maps of *tiles*, as probability * 255.

        Parameters
        ----------
        tiles : uint8 (n, 256, 256, 3)
            RGB.

        Returns
        -------
        uint8 (n, K, 256, 256)
            In the order of :attr:`names`.

        Raises
        ------
        SmallerBatch
            Out of device memory.
        """
        out = np.empty((len(tiles), len(self.names), TILE, TILE), np.uint8)
        for k, maps in enumerate(in_batches(tiles, self.batch, self.begin)):
            out[k * self.batch : (k + 1) * self.batch] = maps
        return out

    def begin(self, tiles: NDArray[np.uint8]) -> Callable[[], NDArray[np.uint8]]:
        """Begin the forward pass of one batch, padded with zeros to the fixed shape; return what gives its maps.

        A GPU forwards it while the next one is begun; a CPU is done when this returns.

        Parameters
        ----------
        tiles : uint8 (n, 256, 256, 3)
            At most :attr:`batch` of them.

        Raises
        ------
        SmallerBatch
            Out of device memory; what is returned may raise it too.
        """
        begun = self.runner.begin(tiles, self._forward, lambda maps: [(maps[0] * 255).round().to(torch.uint8)])
        return lambda: begun()[0]

    def _forward(self, pixels: Tensor) -> list[Tensor]:  # (B, 256, 256, 3) -> one of (B, K, 256, 256)
        x = pixels.permute(0, 3, 1, 2)
        return [self.forward((x.to(torch.float32) / 127.5 - 1).to(self.dtype))]

    def probe(self) -> None:
        """Run one forward pass, so that lack of memory shows before any work is done.

        Raises
        ------
        SmallerBatch
        """
        self.maps(np.zeros((1, TILE, TILE, 3), np.uint8))


def load_predictor(path: Path, device: str, precision: str, batch: int, engine: str = "torch") -> Predictor:
    """Return a predictor with the largest batch, *batch* or smaller, that fits the device's memory."""
    while True:
        predictor = Predictor(path, device, precision, batch, engine)
        try:
            if batch or engine != "torch" or predictor.device.type != "cpu":  # a CPU's default batch is small
                predictor.probe()
            return predictor
        except SmallerBatch as error:
            log.warning("%s", error)
            batch = error.batch
