"""nnU-Net's plain U-Net in two dimensions, after its own plan rules, the same function as its own library.

As ``dynamic-network-architectures`` has it: stages of two 3x3 convolutions, instance norm and leaky ReLU, strided
convolutions down, transposed ones up. Heads see the maps of the decoder; the head ``deep`` supervises all of them, as
nnU-Net does.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from wsipipe.models.baselines.plain import PlainBackbone, check_plain
from wsipipe.models.checks import WIDEST, expect, many, whole


@dataclass(frozen=True)
class NNUNetConfig:
    """Size of the network.

    Attributes
    ----------
    widths : tuple of int
        Of the stages, from the picture's resolution down; each is half as large as the one before.
    convolutions : int
        Of a stage.
    condition, channels : int
        Always 0 and 3.
    """

    widths: tuple[int, ...]
    convolutions: int = 2
    condition: int = 0
    channels: int = 3

    def __post_init__(self) -> None:
        good = many(whole(1, WIDEST))(self.widths) and 2 <= len(self.widths) <= 8
        expect(good, "backbone's widths", self.widths, f"two to eight numbers up to {WIDEST}")
        expect(whole(1, 8)(self.convolutions), "backbone's convolutions", self.convolutions, "1 to 8")
        check_plain(self.condition, self.channels, "nnU-Net")

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of the decoder's maps."""
        return self.widths[-2::-1]

    @property
    def deepest_width(self) -> int:
        """Channels of the last stage of the encoder."""
        return self.widths[-1]

    @property
    def scale(self) -> int:
        """The last map has the picture's resolution."""
        return 1

    def in_latents(self, channels: int) -> NNUNetConfig:
        """Return the configuration for latents: ValueError, there is none."""
        return dataclasses.replace(self, channels=channels)


def planned(base: int, most: int, condition: int = 0) -> NNUNetConfig:
    """Return nnU-Net's plan for tiles of 256 px: halved until 4 px are left, widths doubled from *base* to *most*."""
    return NNUNetConfig(tuple(min(base * 2**k, most) for k in range(7)), condition=condition)


def t(condition: int = 0) -> NNUNetConfig:
    """Return a size within 5 % of the unconditioned CMD-T's parameters."""
    return planned(8, 128, condition)


def s(condition: int = 0) -> NNUNetConfig:
    """Return the size of Table 4 of the CMD paper, 12.19 M, within 1 %.

    The paper states neither plan nor library; nnU-Net's own plan for 256 px, size B, has 33.5 M.
    """
    return planned(40, 256, condition)


def b(condition: int = 0) -> NNUNetConfig:
    """Return nnU-Net's own plan for 256 px: 32 channels doubled up to 512."""
    return planned(32, 512, condition)


def large(condition: int = 0) -> NNUNetConfig:
    """Return twice the widths."""
    return planned(64, 1024, condition)


SIZES = {"T": t, "S": s, "B": b, "L": large}


class ConvBlock(nn.Module):
    """3x3 convolution, instance norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.norm = nn.InstanceNorm2d(outputs, affine=True)
        self.nonlin = nn.LeakyReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.nonlin(self.norm(self.conv(x))))


class Stage(nn.Module):
    """Convolutions one after the other; the first may halve the map."""

    def __init__(self, count: int, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        first = ConvBlock(inputs, outputs, stride)
        self.convs = nn.Sequential(first, *(ConvBlock(outputs, outputs) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.convs(x))


class NNUNet(PlainBackbone):
    """The network, convolutions started as He proposes (leaky slope 0.01), as nnU-Net starts."""

    config: NNUNetConfig

    def __init__(self, config: NNUNetConfig) -> None:
        super().__init__(config)
        w, n = config.widths, config.convolutions
        self.stages = nn.ModuleList(Stage(n, a, b, 2 if k else 1) for k, (a, b) in enumerate(zip((3, *w), w)))
        pairs = list(zip(w[::-1], w[-2::-1]))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(below, here, 2, 2) for below, here in pairs)
        self.decoder = nn.ModuleList(Stage(n, 2 * here, here) for _, here in pairs)
        self.finish()
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module is not self.output:
                nn.init.kaiming_normal_(module.weight, a=0.01)
                nn.init.zeros_(cast(Tensor, module.bias))

    def blocks(self) -> list[nn.Module]:
        """Return the stages in the order they run."""
        return [*self.stages, *self.decoder]

    def maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last map of the encoder, and those of the decoder."""
        skips: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        found = []
        for up, stage, skip in zip(self.ups, self.decoder, skips[-2::-1]):
            x = stage(torch.cat((up(x), skip), 1))
            found.append(x)
        return skips[-1], found
