"""The size of a U-Net of six levels, as the backbones that are one share it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

from wsipipe.models.checks import WIDEST, expect, many, whole


@dataclass(frozen=True)
class UNetConfig:
    """Size of a backbone.

    Attributes
    ----------
    widths : six ints
        Channels at 256², 128², 64², 32², 16² and 8².
    condition : int
        Width D of the foundation-model feature; 0 for an unconditioned backbone.
    channels : int
        Of the image: 3; of latents: 4.
    """

    STEP: ClassVar[int]
    """What the widths are multiples of."""
    widths: tuple[int, int, int, int, int, int]
    condition: int = 0
    channels: int = 3

    def __post_init__(self) -> None:
        good = many(whole(self.STEP, WIDEST), 6)(self.widths) and not any(width % self.STEP for width in self.widths)
        expect(good, "backbone's widths", self.widths, f"six multiples of {self.STEP}, up to {WIDEST}")
        expect(whole(0, 2 * WIDEST)(self.condition), "backbone's condition", self.condition, "a width, or 0")
        expect(whole(1, 64)(self.channels), "backbone's channels", self.channels, "1 to 64")

    @property
    def deepest_width(self) -> int:
        """Channels of the bottleneck."""
        return self.widths[-1]

    @property
    def scale(self) -> int:
        """The finest map is as large as the image."""
        return 1

    def in_latents(self, channels: int) -> Self:
        """Return the configuration for latents of so many channels."""
        return dataclasses.replace(self, channels=channels)
