"""The pixels themselves as a backbone without weights: what any pretrained one is to be compared with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsipipe.models.backbone import FEATURE_TIMESTEP, Backbone, Folded
from wsipipe.models.checks import expect


@dataclass(frozen=True)
class PixelsConfig:
    """Size of the backbone: there is one.

    Attributes
    ----------
    condition, channels : int
        Always 0 and 3.
    """

    condition: int = 0
    channels: int = 3

    def __post_init__(self) -> None:
        expect(self.condition == 0, "backbone's condition", self.condition, "0: pixels take none")
        expect(self.channels == 3, "backbone's channels", self.channels, "3: red, green and blue")

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """One map: the picture."""
        return (3,)

    @property
    def deepest_width(self) -> int:
        """Of the same map."""
        return 3

    @property
    def scale(self) -> int:
        """One pixel."""
        return 1

    def in_latents(self, channels: int) -> PixelsConfig:
        """Return the configuration for latents: ValueError, there is none."""
        return PixelsConfig(channels=channels)


class PixelsBackbone(Backbone):
    """Gives the picture back."""

    config: PixelsConfig

    def __init__(self, config: PixelsConfig) -> None:
        super().__init__()
        self.config, self.output = config, nn.Identity()

    @property
    def reconstructs(self) -> bool:
        """Whether it fills in what is masked: it does not."""
        return False

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        """Return nothing where something is masked."""
        return torch.zeros_like(x)

    def both(self, x: Tensor, z: Tensor | None, timestep: int) -> tuple[Tensor, list[Tensor]]:
        """Return the picture, twice."""
        return x, [x]

    def fold(self, timestep: int = FEATURE_TIMESTEP) -> Folded:
        """Return the same."""
        return FoldedPixels()

    def blocks(self) -> list[nn.Module]:
        """Return none."""
        return []

    def open_gates(self, gate: float = 0.5) -> None:
        """Do nothing."""

    def zero_start(self) -> None:
        """Do nothing."""


class FoldedPixels(Folded):
    """Gives the picture back."""

    def encode(self, x: Tensor) -> tuple[Tensor, None]:
        """Return the picture."""
        return x, None

    def decode(self, deepest: Tensor, rest: None) -> list[Tensor]:
        """Return the picture as the only map."""
        return [deepest]


SIZES = {"": PixelsConfig}
"""It has no letter."""
