"""Tiles to features: what the backbone makes of a tile, averaged over it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import Segmenter
from wsipipe.models.cmd import CMD, TILE
from wsipipe.models.folded import FoldedSegmenter
from wsipipe.models.heads import Head
from wsipipe.predict import (
    BATCH,
    Recipe,
    SmallerBatch,
    check_numbers,
    choose_device,
    choose_dtype,
    denormals_flushed,
    out_of_memory,
)


class Embedder:
    """A backbone on a device, with one fixed batch shape; takes segmenters and backbones without a head.

    Parameters
    ----------
    path : Path
        Checkpoint.
    pool : str
        decoder, bottleneck or both, as in :class:`wsipipe.cell_settings.FeatureSettings`.
    device, precision : str
        As in :class:`wsipipe.settings.RunSettings`.
    batch : int
        Tiles per forward pass; 0 takes the device's default.

    Attributes
    ----------
    width : int
        Features per tile, D.
    """

    def __init__(
        self, path: Path, pool: str = "decoder", device: str = "auto", precision: str = "auto", batch: int = 0
    ) -> None:
        network, self.card = checkpoint.load(path)
        if not isinstance(network, Segmenter):
            network = Segmenter(cast(CMD, network), cast(Head, nn.Identity()))
        backbone = network.backbone
        self.pool = pool
        self.width = sum(backbone.feature_widths) * (pool != "bottleneck")
        self.width += backbone.config.widths[-1] * (pool != "decoder")
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.batch = batch or BATCH[self.device.type]
        folded = FoldedSegmenter(network)
        self.network = folded.to(self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dtype = str(self.dtype).removeprefix("torch.")
        self.recipe = Recipe(self.device.type, dtype, "eager", torch.__version__.partition("+")[0], self.batch)

    def features(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of *tiles* (n, 256, 256, 3), float32 (n, D).

        The means over the tile of the decoder's maps, coarse to fine, then of the bottleneck.

        Raises
        ------
        SmallerBatch
            Out of device memory.
        """
        out = np.empty((len(tiles), self.width), np.float32)
        for start in range(0, len(tiles), self.batch):
            part = tiles[start : start + self.batch]
            out[start : start + self.batch] = self._forward(part)[: len(part)]
        return out

    @torch.inference_mode()
    def _forward(self, part: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of one batch, padded with zeros to the fixed shape."""
        fixed = np.zeros((self.batch, TILE, TILE, 3), np.uint8)
        fixed[: len(part)] = part
        try:
            x = torch.from_numpy(fixed).to(self.device, non_blocking=True).permute(0, 3, 1, 2)
            with denormals_flushed():
                pooled = self._pooled((x.to(torch.float32) / 127.5 - 1).to(self.dtype))
            check_numbers(pooled, self.card)
            return pooled.cpu().numpy()
        except RuntimeError as error:
            if not out_of_memory(error) or self.batch == 1:
                raise
            raise SmallerBatch(self.batch) from error

    def _pooled(self, x: Tensor) -> Tensor:  # (B, 3, 256, 256) -> (B, D)
        deepest, skips = self.network.encode(x)
        maps = self.network.decode(deepest, skips) if self.pool != "bottleneck" else []
        if self.pool != "decoder":
            maps = [*maps, deepest]
        return torch.cat([m.float().mean(dim=(2, 3)) for m in maps], dim=1)
