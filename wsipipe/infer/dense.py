"""Tiles to dense features, tokens and reconstructions: what a network makes of every place, for people to look at."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsipipe.infer.runner import Runner
from wsipipe.models import checkpoint
from wsipipe.models.backbone import FEATURE_TIMESTEP, TILE, Backbone
from wsipipe.models.checkpoint import Segmenter
from wsipipe.models.conditioning import check_encoder, open_encoder, token_of
from wsipipe.models.device import SmallerBatch, choose_device
from wsipipe.models.threads import denormals_flushed
from wsipipe.train.diffusion import normalise
from wsipipe.train.pictures import reconstruct

BATCH = 4
"""Tiles per forward pass."""

Pixels = NDArray[np.uint8]


class DenseBackbone:
    """A backbone in fp32, asked for its maps rather than for cells; with its frozen encoder where there is one.

    Parameters
    ----------
    path : Path
        Checkpoint of a backbone or of a segmenter, whose head is left aside.
    device : str
        As in :class:`wsipipe.settings.RunSettings`.
    encoder : str
        As :func:`wsipipe.models.conditioning.open_encoder` takes it; a conditioned backbone needs it.

    Attributes
    ----------
    card : ModelCard

    Raises
    ------
    SettingsError
        When the backbone is conditioned and *encoder* is missing, or not the one it was trained with.
    ModelError
    """

    def __init__(self, path: Path, device: str = "auto", encoder: str = "") -> None:
        network, self.card = checkpoint.load(path)
        self.device = choose_device(device)
        backbone = network.backbone if isinstance(network, Segmenter) else cast(Backbone, network)
        self.network = backbone.requires_grad_(False).to(self.device)
        self.encoder, self.batch = open_encoder(encoder, self.device, token_of(self.card)) if encoder else None, BATCH
        check_encoder(self.card, self.encoder)

    @property
    def reconstructs(self) -> bool:
        """Whether the layer that gives the picture has ever been trained: it starts at zero."""
        return self.network.reconstructs

    def maps(self, tiles: Pixels, windows: Pixels, timestep: int = FEATURE_TIMESTEP) -> dict[int, NDArray[np.float32]]:
        """Return the decoder's maps that heads use, by their side: float32 (n, side, side, C), coarse to fine.

        Maps of the same side are joined along their channels.

        Parameters
        ----------
        tiles : uint8 (n, 256, 256, 3)
            Unmasked.
        windows : uint8 (n, 512, 512, 3)
            The same with their surroundings, from which the condition of a conditioned backbone comes.

        Raises
        ------
        ModelError
            Not even one tile fits into memory.
        """
        given, margin = (windows, (windows.shape[1] - TILE) // 2) if self.network.config.condition else (tiles, 0)
        inner = slice(margin, margin + TILE)

        def forward(pixels: Tensor) -> list[Tensor]:
            z = torch.from_numpy(self.encoder(pixels)).to(self.device) if margin and self.encoder else None
            features = self.network.features(normalise(pixels[:, inner, inner]), z, timestep)
            sides = dict.fromkeys(f.shape[-1] for f in features)
            same = [torch.cat([f for f in features if f.shape[-1] == side], dim=1) for side in sides]
            return [maps.permute(0, 2, 3, 1).float() for maps in same]

        while True:
            try:
                found = Runner(self.card, self.device, self.batch).run(given, forward)
                return {maps.shape[1]: maps for maps in found}
            except SmallerBatch as error:
                self.batch = error.batch

    @torch.inference_mode()
    def reconstructions(self, tiles: Pixels, windows: Pixels, timestep: int) -> tuple[Pixels, Pixels]:
        """Return masked inputs and reconstructions (n, 256, 256, 3) of *tiles*; the masks are always the same."""
        z = self.condition(windows)
        with denormals_flushed() if self.device.type == "cpu" else nullcontext():
            masked, result = reconstruct(self.network, torch.from_numpy(tiles), timestep, z)
        return masked.numpy(), result.numpy()

    def tokens(self, images: Pixels) -> NDArray[np.float32]:
        """Return the encoder's patch tokens of whole *images* (n, H, W, 3): float32 (n, h, w, D)."""
        assert self.encoder is not None
        return self.encoder.tokens(torch.from_numpy(images))

    def condition(self, windows: Pixels) -> Tensor | None:
        """Return the encoder's features (n, D) of *windows*, None for a backbone that takes none."""
        if not self.network.config.condition or self.encoder is None:
            return None
        return torch.from_numpy(self.encoder(torch.from_numpy(windows))).to(self.device)
