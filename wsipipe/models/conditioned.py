"""A conditioned backbone with its frozen encoder inside: what it is told of a tile follows from the tile alone.

So it can be fitted, saved and run over slides as any other. In pretraining the encoder sees the whole 512 px patch that
an input was cut from; here it sees the 256 px tile, enlarged to its own side, as no more of a slide is at hand where
tiles are forwarded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models import backbone_kinds
from wsipipe.models.backbone import FEATURE_TIMESTEP, Backbone, Folded, Wrapped
from wsipipe.models.checks import expect, whole
from wsipipe.models.pointwise import without_pointwise_convolutions
from wsipipe.models.vit import ViT
from wsipipe.models.vit_backbone import ViTConfig

TOKENS = ("class", "patch")
"""What an image's feature is: the class token, or the mean of the tokens of its patches."""


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder inside a backbone.

    Attributes
    ----------
    name : str
        As the backbone's pretraining called it.
    vit : ViTConfig
        Of the network; its grid and its taken blocks say nothing here.
    side : int
        Of its input, in pixels.
    token : {'class', 'patch'}
    """

    name: str
    vit: ViTConfig
    side: int
    token: str = TOKENS[0]

    def __post_init__(self) -> None:
        expect(isinstance(self.name, str), "encoder's name", self.name, "text")
        expect(whole(self.vit.patch, 4096)(self.side), "encoder's side", self.side, f"{self.vit.patch} to 4096 pixels")
        expect(self.token in TOKENS, "encoder's token", self.token, f"one of {', '.join(TOKENS)}")

    @classmethod
    def from_json(cls, said: Any) -> EncoderConfig:
        """Return what a header states; ValueError when it states something else."""
        good = isinstance(said, dict) and {"name", "vit", "side", "token"} == set(said)
        expect(good, "encoder", said, "a name, a network, a side and a token")
        vit = backbone_kinds.from_json({"kind": "vit", **said["vit"]} if isinstance(said["vit"], dict) else said["vit"])
        expect(isinstance(vit, ViTConfig), "encoder's network", said["vit"], "a vision transformer")
        assert isinstance(vit, ViTConfig)
        return cls(said["name"], vit, said["side"], said["token"])


def pooled(tokens: Tensor, prefix: int, token: str) -> Tensor:
    """Return the feature (B, D) of *tokens* (B, N, D), of which the first *prefix* are of no patch."""
    return tokens[:, 0] if token == "class" else tokens[:, prefix:].mean(1)


class TileEncoder(nn.Module):
    """A frozen vision transformer that gives one feature of a tile."""

    def __init__(self, config: EncoderConfig, vit: ViT | None = None) -> None:
        super().__init__()
        self.config = config
        self.vit = (vit or ViT(config.vit.shapes())).eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B, D) of tiles (B, 3, H, W) in [-1, 1]."""
        side, stated = self.config.side, self.config.vit
        y = F.interpolate(x.float() / 2 + 0.5, (side, side), mode="bilinear", antialias=True, align_corners=False)
        mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (stated.mean, stated.std))
        return pooled(self.vit(((y - mean) / std).to(x.dtype)), self.vit.prefix, self.config.token)


class WithEncoder(Wrapped):
    """A conditioned backbone, together with what conditions it: pictures in, features out."""

    def __init__(self, encoder: TileEncoder, inner: Backbone) -> None:
        super().__init__()
        self.encoder, self.inner = encoder, inner
        self.config = backbone_kinds.without_condition(inner.config)

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        """Reconstruct; without *z*, the encoder's feature of what is shown."""
        out: Tensor = self.inner(x, t, self.encoder(x) if z is None else z)
        return out

    def both(self, x: Tensor, z: Tensor | None, timestep: int) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest map and the maps that heads use of images (B, 3, H, W)."""
        return self.inner.both(x, self.encoder(x) if z is None else z, timestep)

    def fold(self, timestep: int = FEATURE_TIMESTEP) -> Folded:
        """Return what computes the same: its condition differs from tile to tile, so there is nothing to fold."""
        return FoldedWithEncoder(self, timestep)


class FoldedWithEncoder(Folded):
    """A backbone with its encoder, asked for its features."""

    def __init__(self, backbone: WithEncoder, timestep: int) -> None:
        super().__init__()
        self.network, self.timestep = without_pointwise_convolutions(backbone), timestep

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest map, and all maps."""
        return self.network.both(x, None, self.timestep)

    def decode(self, deepest: Tensor, rest: list[Tensor]) -> list[Tensor]:
        """Return the maps that heads use."""
        return rest


def bare(backbone: Backbone) -> Backbone:
    """Return *backbone* without the encoder that it may have inside."""
    return backbone.inner if isinstance(backbone, WithEncoder) else backbone
