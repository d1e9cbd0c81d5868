"""What a backbone fills in: the picture itself, or an autoencoder's latents of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.backbone import FEATURE_TIMESTEP, TILE, Backbone, Folded, Wrapped
from wsipipe.models.checks import expect, whole
from wsipipe.models.pointwise import without_pointwise_convolutions
from wsipipe.models.vae import VAE, VAEConfig

CELL = 8
"""Side of the squares of a picture that are masked, in pixels."""
LATENT_CELL = 4
"""Side of the squares of latents that are masked (Table B3 of the CMD paper)."""
ENLARGED = {"vae": 1, "vae-512": 2}
"""How many times a picture is enlarged before it is encoded, by the name of the space."""


@dataclass(frozen=True)
class SpaceConfig:
    """The latents that a backbone works on.

    Attributes
    ----------
    vae : VAEConfig
        Of the autoencoder.
    enlarge : int
        How many times pictures are enlarged before they are encoded: 2 for latents of twice the resolution.
    """

    vae: VAEConfig
    enlarge: int = 1

    def __post_init__(self) -> None:
        expect(whole(1, 8)(self.enlarge), "space's enlargement", self.enlarge, "1 to 8 times")

    @property
    def scale(self) -> int:
        """Pixels of the picture along a side of a latent."""
        return max(1, self.vae.factor // self.enlarge)

    @classmethod
    def from_json(cls, said: Any) -> SpaceConfig:
        """Return what a header states; ValueError when it states something else."""
        good = isinstance(said, dict) and isinstance(said.get("vae"), dict) and {"vae", "enlarge"} == set(said)
        expect(good, "space", said, "an autoencoder and an enlargement")
        try:
            given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said["vae"].items()}
            vae = VAEConfig(**given)
        except TypeError as error:
            raise ValueError(f"its autoencoder is {said['vae']}; expected widths and numbers") from error
        return cls(vae, said["enlarge"])


class Pixels:
    """The picture itself."""

    channels = 3
    cells = TILE // CELL
    """Masked squares along a side of a tile."""

    def encode(self, images: Tensor) -> Tensor:
        """Return what a backbone is to fill in of *images* (B, 3, H, W) in [-1, 1]."""
        return images

    def decode(self, x: Tensor) -> Tensor:
        """Return the images of what a backbone fills in."""
        return x


class Latents(nn.Module):
    """An autoencoder's mean latents, scaled; its weights stay as they are."""

    def __init__(self, config: SpaceConfig, vae: VAE | None = None) -> None:
        super().__init__()
        self.config = config
        self.vae = (vae or VAE(config.vae)).eval().requires_grad_(False)
        self.channels = config.vae.latents
        self.cells = max(1, TILE // config.scale // LATENT_CELL)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of *images* (B, 3, H, W) in [-1, 1]."""
        k = self.config.enlarge
        x = images if k == 1 else F.interpolate(images, scale_factor=k, mode="bilinear", align_corners=False)
        return self.vae.encode(x)

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) of latents."""
        images, k = self.vae.decode(x), self.config.enlarge
        return images if k == 1 else F.avg_pool2d(images, k)

    def forward(self, images: Tensor) -> Tensor:
        return self.encode(images)


Space = Pixels | Latents


def space_of(network: nn.Module) -> Space:
    """Return what *network* fills in."""
    return network.space if isinstance(network, InLatents) else Pixels()


class InLatents(Wrapped):
    """A backbone that works on latents, together with what makes them: pictures in, features out."""

    def __init__(self, space: Latents, inner: Backbone) -> None:
        super().__init__()
        self.space, self.inner = space, inner
        self.config = inner.config

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        """Reconstruct latents from masked ones; see :meth:`wsipipe.models.backbone.Backbone.forward`."""
        out: Tensor = self.inner(x, t, z)
        return out

    def both(self, x: Tensor, z: Tensor | None, timestep: int) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest map and the maps that heads use of images (B, 3, H, W)."""
        return self.inner.both(self.space.encode(x), z, timestep)

    def fold(self, timestep: int = FEATURE_TIMESTEP) -> Folded:
        """Return the same with the backbone folded."""
        return FoldedInLatents(self, timestep)


class FoldedInLatents(Folded):
    """A folded backbone that works on latents."""

    def __init__(self, backbone: InLatents, timestep: int) -> None:
        super().__init__()
        self.space, self.inner = without_pointwise_convolutions(backbone.space), backbone.inner.fold(timestep)

    def encode(self, x: Tensor) -> tuple[Tensor, Any]:
        """Return the deepest map, and what :meth:`decode` needs too, of images (B, 3, H, W)."""
        return self.inner.encode(self.space.encode(x))

    def decode(self, deepest: Tensor, rest: Any) -> list[Tensor]:
        """Return the maps that heads use."""
        return self.inner.decode(deepest, rest)
