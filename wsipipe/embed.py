"""Tiles to features: what the backbone makes of a tile, averaged over it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsipipe.infer.runner import Runner
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import Segmenter
from wsipipe.models.cmd import CMD, TILE
from wsipipe.models.conditioning import check_encoder, open_encoder
from wsipipe.models.device import BATCH, choose_device, choose_dtype
from wsipipe.models.folded import Conditioned, FoldedSegmenter
from wsipipe.models.heads import Head
from wsipipe.predict import Recipe

WINDOW = 512
"""Side of the square around a tile that the encoder of a conditioned backbone sees, as in pretraining."""
MARGIN = (WINDOW - TILE) // 2


class Embedder:
    """A backbone on a device, with one fixed batch shape; takes segmenters and backbones without a head.

    Parameters
    ----------
    path : Path
        Checkpoint.
    pool : str
        decoder, bottleneck or both, as in :class:`wsipipe.settings.FeatureSettings`.
    device, precision : str
        As in :class:`wsipipe.settings.RunSettings`.
    batch : int
        Tiles per forward pass; 0 takes the device's default.
    encoder : str
        As :func:`wsipipe.models.conditioning.open_encoder` takes it; a conditioned backbone needs it.

    Attributes
    ----------
    width : int
        Features per tile, D.
    encoder : Encoder or None
        That of a conditioned backbone.
    margin : int
        Pixels around a tile that its features depend on.

    Raises
    ------
    SettingsError
        When the backbone is conditioned and *encoder* is missing, or not the one it was trained with.
    ModelError
    """

    def __init__(
        self,
        path: Path,
        pool: str = "decoder",
        device: str = "auto",
        precision: str = "auto",
        batch: int = 0,
        encoder: str = "",
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
        conditioned = backbone.config.condition > 0
        self.encoder = open_encoder(encoder, self.device) if encoder and conditioned else None
        check_encoder(self.card, self.encoder)
        self.margin = MARGIN if conditioned else 0
        ready = Conditioned(backbone) if conditioned else FoldedSegmenter(network)
        self.network = ready.to(self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dtype = str(self.dtype).removeprefix("torch.")
        self.recipe = Recipe(self.device.type, dtype, "eager", torch.__version__.partition("+")[0], self.batch)

    def features(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of *tiles* with their :attr:`margin` (n, 256 + 2 margin, ..., 3), float32 (n, D).

        The means over the tile of the decoder's maps, coarse to fine, then of the bottleneck.

        Raises
        ------
        SmallerBatch
            Out of device memory.
        """
        return Runner(self.card, self.device, self.batch).run(tiles, lambda pixels: [self._pooled(pixels)])[0]

    def _pooled(self, pixels: Tensor) -> Tensor:  # (B, 256 + 2 margin, ..., 3) -> (B, D)
        inner = slice(self.margin, self.margin + TILE)
        x = (pixels[:, inner, inner].permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1).to(self.dtype)
        if self.encoder is not None:
            z = torch.from_numpy(self.encoder(pixels)).to(self.device)
            deepest, maps = self.network.both(x, z)
        else:
            deepest, skips = self.network.encode(x)
            maps = self.network.decode(deepest, skips) if self.pool != "bottleneck" else []
        shown = [*(maps if self.pool != "bottleneck" else []), *([deepest] if self.pool != "decoder" else [])]
        return torch.cat([m.float().mean(dim=(2, 3)) for m in shown], dim=1)
