"""Tiles to features: what the backbone makes of a tile, averaged over it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsipipe.errors import SettingsError
from wsipipe.infer.predict import Recipe
from wsipipe.infer.runner import Runner
from wsipipe.models import checkpoint
from wsipipe.models.backbone import TILE, Backbone
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.conditioning import check_encoder, open_encoder, token_of
from wsipipe.models.device import BATCH, choose_device, choose_dtype
from wsipipe.models.encoders import named
from wsipipe.models.folded import Conditioned, FoldedSegmenter
from wsipipe.models.heads import Head
from wsipipe.models.intact import digest_of
from wsipipe.settings import FeatureSettings, RunSettings

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
            network = Segmenter(cast(Backbone, network), cast(Head, nn.Identity()))
        backbone = network.backbone
        self.pool = pool
        self.width = sum(backbone.feature_widths) * (pool != "bottleneck")
        self.width += backbone.config.deepest_width * (pool != "decoder")
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.batch = batch or BATCH[self.device.type]
        conditioned = backbone.config.condition > 0
        wanted = encoder and conditioned
        self.encoder = open_encoder(encoder, self.device, token_of(self.card)) if wanted else None
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


@dataclass(frozen=True)
class Elsewhere:
    """The size of a network that is no backbone of wsipipe."""

    width: int
    condition: int = 0

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """One vector."""
        return (self.width,)

    @property
    def deepest_width(self) -> int:
        """The same."""
        return self.width

    @property
    def scale(self) -> int:
        """It stands for a whole tile."""
        return TILE

    def in_latents(self, channels: int) -> Elsewhere:
        """Return itself: it takes pictures."""
        return self


class EncoderEmbedder(Embedder):
    """A foundation model on a device: its feature of each tile, as it stands, in fp32.

    Parameters
    ----------
    source : str
        As :func:`wsipipe.models.conditioning.open_encoder` takes it.
    device : str
    batch : int
        Tiles per forward pass; 0 takes the device's default.

    Attributes
    ----------
    sha256 : str
        Of its weights.

    Raises
    ------
    ModelNotFound, NotAModel, ModelError, MissingDependency, SettingsError
    """

    def __init__(self, source: str, device: str = "auto", batch: int = 0) -> None:
        self.device, self.dtype, self.pool, self.margin = choose_device(device), torch.float32, "encoder", 0
        self.encoder = open_encoder(source, self.device)
        self.batch = batch or BATCH[self.device.type]
        self.width = int(self.encoder(torch.zeros(1, TILE, TILE, 3, dtype=torch.uint8)).shape[1])
        found = named(source)
        licence = found[0].licence if found else "unknown"
        self.card = ModelCard(self.encoder.name, Elsewhere(self.width), licence=licence)
        self.sha256 = digest_of(self.encoder.network.state_dict())
        self.recipe = Recipe(self.device.type, "float32", "eager", torch.__version__.partition("+")[0], self.batch)

    def _pooled(self, pixels: Tensor) -> Tensor:  # (B, 256, 256, 3) -> (B, D)
        assert self.encoder is not None
        return torch.from_numpy(self.encoder(pixels)).to(self.device)


def load_embedder(path: Path | None, run: RunSettings, asked: FeatureSettings, batch: int) -> tuple[Embedder, str]:
    """Return what makes features, and the SHA-256 of its weights: the model at *path*, or the encoder itself.

    Raises
    ------
    ModelError
    SettingsError
        When an encoder alone is to be computed in bf16.
    """
    if path:
        embedder = Embedder(path, asked.pool, run.device, run.precision, batch, asked.encoder)
        return embedder, checkpoint.model_hash(path)
    if run.precision == "bf16":
        raise SettingsError("--precision bf16: foundation models are computed in fp32 here; leave it out")
    encoder = EncoderEmbedder(asked.encoder, run.device, batch)
    return encoder, encoder.sha256
