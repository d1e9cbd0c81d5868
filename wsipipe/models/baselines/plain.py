"""What the backbones of this package share: they are told the picture alone, and have no gates.

Under masked diffusion they fill in masked pictures without being told t, from all of their maps.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.backbone import FEATURE_TIMESTEP, Backbone, Folded
from wsipipe.models.checks import expect
from wsipipe.models.encoders import IMAGENET
from wsipipe.models.heads import resize


class PlainBackbone(Backbone):
    """A backbone that is a function of the picture.

    A subclass sets its parts after ``super().__init__(config)``, and ``output`` with :meth:`finish`.
    """

    output: nn.Conv2d

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest map and the maps that heads use, coarse to fine, of images (B, 3, H, W) in [-1, 1]."""

    def finish(self) -> None:
        """Add the layer that gives the picture, zero-started."""
        self.output = nn.Conv2d(sum(self.config.feature_widths), 3 * self.config.scale**2, 1)
        self.zero_start()

    def zero_start(self) -> None:
        """Set the last layer to zero."""
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(cast(Tensor, self.output.bias))

    def open_gates(self, gate: float = 0.5) -> None:
        """Do nothing: there are no gates."""

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        """Reconstruct the image from all maps; neither *t* nor *z* is told to the network."""
        found = self.maps(x)[1]
        size = (int(found[-1].shape[-2]), int(found[-1].shape[-1]))
        return F.pixel_shuffle(self.output(torch.cat([resize(m, size) for m in found], 1)), self.config.scale)

    def both(self, x: Tensor, z: Tensor | None, timestep: int) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest map and the maps that heads use."""
        return self.maps(x)

    def fold(self, timestep: int = FEATURE_TIMESTEP) -> Folded:
        """Return the same network: there is nothing to fold."""
        return FoldedPlain(self)


class FoldedPlain(Folded):
    """A network that is asked for its features."""

    def __init__(self, backbone: PlainBackbone) -> None:
        super().__init__()
        self.network = backbone

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest map, and all maps."""
        return self.network.maps(x)

    def decode(self, deepest: Tensor, rest: list[Tensor]) -> list[Tensor]:
        """Return the maps that heads use."""
        return rest


def check_plain(condition: int, channels: int, what: str) -> None:
    """Refuse a condition, and latents: ValueError says so."""
    expect(condition == 0, "backbone's condition", condition, f"0: a {what} takes none")
    expect(channels == 3, "backbone's channels", channels, f"3: a {what} works on pixels")


def as_imagenet(x: Tensor, mean: tuple[float, ...] = IMAGENET[0], std: tuple[float, ...] = IMAGENET[1]) -> Tensor:
    """Return images in [-1, 1] with the mean and spread that networks of photographs take."""
    m, s = (torch.tensor(v, device=x.device, dtype=x.dtype).view(3, 1, 1) for v in (mean, std))
    return (x / 2 + 0.5 - m) / s


def normalised(x: Tensor) -> Tensor:
    """Return a map (B, C, H, W) normalised over its channels, without weights."""
    y = x.permute(0, 2, 3, 1)
    return F.layer_norm(y, [y.shape[-1]], eps=1e-6).permute(0, 3, 1, 2)
