"""TransUNet (Chen et al. 2021): a ResNet-50 up to a 16th, a vision transformer on its map, a cascaded upsampler.

After the authors' R50-ViT-B_16; the fourth and finest step of the upsampler has no skip, as theirs. The max pooling is
padded, so that a 256 px tile gives 64, 32 and 16 px, where theirs pads the skips with zeros.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.backbone import TILE
from wsipipe.models.baselines.plain import PlainBackbone, check_plain
from wsipipe.models.checks import WIDEST, expect, many, whole
from wsipipe.models.vit import HEAD, Layer


@dataclass(frozen=True)
class TransUNetConfig:
    """Size of the network.

    Attributes
    ----------
    stem : int
        Channels of the first convolution; the residual stages have 4, 8 and 16 times as many.
    units : three ints
        Of the residual stages.
    width, depth : int
        Of the transformer.
    decoder : five ints
        Channels of the upsampler, from a 16th to the picture's resolution.
    condition, channels : int
        Always 0 and 3.
    """

    stem: int
    units: tuple[int, ...]
    width: int
    depth: int
    decoder: tuple[int, ...]
    condition: int = 0
    channels: int = 3

    def __post_init__(self) -> None:
        expect(whole(8, 1024)(self.stem) and self.stem % 8 == 0, "backbone's stem", self.stem, "a multiple of 8")
        expect(many(whole(1, 100), 3)(self.units), "backbone's units", self.units, "three numbers")
        good = whole(HEAD, WIDEST)(self.width) and not self.width % HEAD
        expect(good, "backbone's width", self.width, f"a multiple of {HEAD}, up to {WIDEST}")
        expect(whole(1, 200)(self.depth), "backbone's depth", self.depth, "1 to 200 blocks")
        expect(many(whole(1, WIDEST), 5)(self.decoder), "backbone's decoder", self.decoder, "five numbers of channels")
        check_plain(self.condition, self.channels, "TransUNet")

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of the upsampler's maps."""
        return self.decoder[1:]

    @property
    def deepest_width(self) -> int:
        """Channels of the transformer's tokens."""
        return self.width

    @property
    def scale(self) -> int:
        """The last map has the picture's resolution."""
        return 1

    def in_latents(self, channels: int) -> TransUNetConfig:
        """Return the configuration for latents: ValueError, there is none."""
        return dataclasses.replace(self, channels=channels)


SIZES = {
    "T": lambda condition=0: TransUNetConfig(16, (1, 1, 1), 128, 6, (64, 32, 32, 16, 8), condition),
    "S": lambda condition=0: TransUNetConfig(32, (2, 2, 3), 256, 8, (128, 64, 32, 32, 16), condition),
    "B": lambda condition=0: TransUNetConfig(64, (3, 4, 9), 768, 12, (512, 256, 128, 64, 16), condition),
    "L": lambda condition=0: TransUNetConfig(64, (3, 4, 9), 1024, 24, (512, 256, 128, 64, 16), condition),
}
"""B is the authors' R50-ViT-B_16, L their R50-ViT-L_16."""


class StandardConv(nn.Conv2d):
    """A convolution without bias whose weights are standardised."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        variance, mean = torch.var_mean(w, dim=(1, 2, 3), keepdim=True, correction=0)
        return F.conv2d(x, (w - mean) / torch.sqrt(variance + 1e-5), None, self.stride, self.padding)


def _conv(inputs: int, outputs: int, side: int, stride: int = 1) -> StandardConv:
    return StandardConv(inputs, outputs, side, stride, side // 2, bias=False)


class Unit(nn.Module):
    """A bottleneck of the residual network."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = outputs // 4
        groups = 32 if not middle % 32 else 8
        self.conv1, self.gn1 = _conv(inputs, middle, 1), nn.GroupNorm(groups, middle, eps=1e-6)
        self.conv2, self.gn2 = _conv(middle, middle, 3, stride), nn.GroupNorm(groups, middle, eps=1e-6)
        self.conv3, self.gn3 = _conv(middle, outputs, 1), nn.GroupNorm(groups, outputs, eps=1e-6)
        self.downsample: StandardConv | None = None
        self.gn_proj: nn.GroupNorm | None = None
        if stride != 1 or inputs != outputs:
            self.downsample, self.gn_proj = _conv(inputs, outputs, 1, stride), nn.GroupNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        rest = x if self.downsample is None or self.gn_proj is None else self.gn_proj(self.downsample(x))
        y = F.relu(self.gn1(self.conv1(x)))
        y = F.relu(self.gn2(self.conv2(y)))
        return F.relu(rest + self.gn3(self.conv3(y)))


class Up(nn.Module):
    """Enlarge twice, join with the skip, two 3x3 convolutions with batch norm and ReLU."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = convolved(inputs + skip, outputs), convolved(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return cast(Tensor, self.conv2(self.conv1(x if skip is None else torch.cat((x, skip), 1))))


def convolved(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 3x3 convolution without bias, batch norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class TransUNet(PlainBackbone):
    """The network; its maps are those of the upsampler."""

    config: TransUNetConfig

    def __init__(self, config: TransUNetConfig) -> None:
        super().__init__(config)
        s, w, d = config.stem, config.width, config.decoder
        groups = 32 if not s % 32 else 8
        self.root = nn.Sequential(_conv(3, s, 7, 2), nn.GroupNorm(groups, s, eps=1e-6), nn.ReLU())
        outs = 4 * s, 8 * s, 16 * s
        self.stages = nn.ModuleList(
            nn.Sequential(Unit(a, b, 1 if k == 0 else 2), *(Unit(b, b, 1) for _ in range(n - 1)))
            for k, (a, b, n) in enumerate(zip((s, *outs), outs, config.units))
        )
        self.patches = nn.Conv2d(outs[-1], w, 1)
        self.positions = nn.Parameter(torch.zeros(1, (TILE // 16) ** 2, w))
        self.layers = nn.Sequential(*(Layer(w, 4 * w, packed=False, scaled=False) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(w, eps=1e-6)
        self.more = convolved(w, d[0])
        skips = outs[1], outs[0], s, 0
        self.ups = nn.ModuleList(Up(a, skip, b) for a, skip, b in zip(d, skips, d[1:]))
        self.finish()

    def blocks(self) -> list[nn.Module]:
        """Return residual stages, transformer blocks and steps of the upsampler in the order they run."""
        return [*self.stages, *self.layers, *self.ups]

    def maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the transformer's map, and those of the upsampler."""
        y = self.root(x)
        skips: list[Tensor | None] = [None, y]
        y = F.max_pool2d(y, 3, 2, 1)
        for stage in self.stages:
            y = stage(y)
            skips.append(y)
        y = self.patches(y)
        height, width = y.shape[-2:]
        tokens = self.norm(self.layers(y.flatten(2).transpose(1, 2) + self._positions(height, width)))
        deepest = tokens.transpose(1, 2).reshape(len(x), -1, height, width)
        y, found = self.more(deepest), []
        for up, skip in zip(self.ups, skips[-2::-1]):
            y = up(y, skip)
            found.append(y)
        return deepest, found

    def _positions(self, height: int, width: int) -> Tensor:
        """Return the positions of the tokens, resized to the map."""
        side = TILE // 16
        if (height, width) == (side, side):
            return self.positions
        square = self.positions.transpose(1, 2).reshape(1, -1, side, side)
        return F.interpolate(square, (height, width), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
