"""ConvNeXt as a backbone: its stages are the maps, with the names of timm, so that timm need not be installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.baselines.plain import PlainBackbone, as_imagenet, normalised
from wsipipe.models.baselines.stages import Stages
from wsipipe.models.checks import WIDEST, expect, many, whole
from wsipipe.models.encoders import IMAGENET


@dataclass(frozen=True)
class ConvNeXtConfig(Stages):
    """Size of the network.

    Attributes
    ----------
    widths, depths : four ints
        Channels and blocks of the stages; they are a 4th to a 32nd as large as the picture.
    taken : tuple of int
        Stages whose maps heads see, 0 to 3.
    mean, std : three floats
        Of the pictures that it takes.
    condition, channels : int
        Always 0 and 3.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    taken: tuple[int, ...] = (0, 1, 2, 3)
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    condition: int = 0
    channels: int = 3

    def __post_init__(self) -> None:
        expect(many(whole(1, WIDEST), 4)(self.widths), "backbone's widths", self.widths, "four numbers of channels")
        expect(many(whole(1, 100), 4)(self.depths), "backbone's depths", self.depths, "four numbers of blocks")
        self.check_rest("ConvNeXt")


def read_config(shapes: Mapping[str, tuple[int, ...]], **other: object) -> ConvNeXtConfig:
    """Return the configuration of weights under timm's names; KeyError or ValueError when they are not a ConvNeXt's."""
    widths = tuple(shapes[f"stages.{k}.blocks.0.conv_dw.bias"][0] for k in range(4))
    depths = tuple(
        len([name for name in shapes if name.startswith(f"stages.{k}.blocks.") and name.endswith(".conv_dw.bias")])
        for k in range(4)
    )
    return ConvNeXtConfig(widths, depths, **other)  # type: ignore[arg-type]


SIZES = {
    "T": lambda condition=0: ConvNeXtConfig((24, 48, 96, 192), (2, 2, 6, 2), condition=condition),
    "S": lambda condition=0: ConvNeXtConfig((48, 96, 192, 384), (2, 2, 6, 2), condition=condition),
    "B": lambda condition=0: ConvNeXtConfig((128, 256, 512, 1024), (3, 3, 27, 3), condition=condition),
    "L": lambda condition=0: ConvNeXtConfig((192, 384, 768, 1536), (3, 3, 27, 3), condition=condition),
}
"""B and L are ConvNeXt's own."""


class MLP(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


class Block(nn.Module):
    """Depthwise 7x7 convolution, LayerNorm and MLP, scaled and added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        y = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1)))
        return cast(Tensor, x + (self.gamma * y).permute(0, 3, 1, 2))


class Norm2d(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks, after the map has been halved."""

    def __init__(self, inputs: int, width: int, depth: int, first: bool) -> None:
        super().__init__()
        halved = (Norm2d(inputs, eps=1e-6), nn.Conv2d(inputs, width, 2, 2))
        self.downsample = nn.Identity() if first else nn.Sequential(*halved)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.blocks(self.downsample(x)))


class ConvNeXt(PlainBackbone):
    """The network; its maps are those after the taken stages, normalised."""

    config: ConvNeXtConfig

    def __init__(self, config: ConvNeXtConfig) -> None:
        super().__init__(config)
        w, last = config.widths, config.taken[-1]
        self.stem = nn.Sequential(nn.Conv2d(3, w[0], 4, 4), Norm2d(w[0], eps=1e-6))
        pairs = list(zip((w[0], *w), w, config.depths))[: last + 1]
        self.stages = nn.ModuleList(Stage(a, b, n, k == 0) for k, (a, b, n) in enumerate(pairs))
        self.finish()

    def blocks(self) -> list[nn.Module]:
        """Return the blocks in the order they run."""
        return [block for stage in self.stages for block in cast(Stage, stage).blocks]

    def maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the map after the last taken stage, and those of all taken ones."""
        y, found = self.stem(as_imagenet(x, self.config.mean, self.config.std)), []
        for k, stage in enumerate(self.stages):
            y = stage(y)
            if k in self.config.taken:
                found.append(normalised(y))
        return found[-1], found[::-1]
