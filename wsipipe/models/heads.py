"""Heads on the backbone's dense features: linear, light (A), sota (B), decoder (B on tokens), deep, uper and cisca.

Every head turns the maps of a backbone (CMD: six of its decoder) into logits (B, K, 256, 256), and logits into *maps*:
named probabilities in [0, 1] from which cells are extracted. ``foreground`` is always among them; ``marker`` (how
surely a pixel lies in the core of one nucleus) only when the head learned to tell touching nuclei apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.supervised import Deep, Others, Uper
from wsipipe.settings import HEADS, HeadKind, named

TYPED = "cisca-typed"
"""A cisca head whose types are read from the backbone's maps by a layer of their own: for a model that had none."""
DIRECTIONS = ((1.0, 0.0), (0.0, 1.0), (math.sqrt(0.5), math.sqrt(0.5)), (math.sqrt(0.5), -math.sqrt(0.5)))
"""Unit vectors (x, y) of the four directional distance maps of the cisca head."""
CENTRE = 3 + len(DIRECTIONS)
"""Channel of a cisca head for the depth inside the nucleus; the types (after "none") follow."""


def kind_of(name: str) -> HeadKind:
    """Return the kind of head called *name*, one of :func:`kinds`."""
    return HEADS["cisca" if name == TYPED else name]


def kinds() -> tuple[str, ...]:
    """Return the names of all heads that a checkpoint may have."""
    return (*HEADS, TYPED)


@dataclass(frozen=True)
class HeadConfig:
    """What a head predicts.

    Attributes
    ----------
    kind : str
        One of :func:`kinds`.
    widths : tuple of int
        Channels of the backbone's feature maps, coarse to fine.
    types : tuple of str
        Names of the cell types; empty when nuclei are only found, not typed.
    scale : int
        Pixels of the image along a side of one pixel of the finest map.
    """

    kind: str
    widths: tuple[int, ...]
    types: tuple[str, ...] = ()
    scale: int = 1

    @property
    def width(self) -> int:
        """Base width w of the backbone (of its finest map)."""
        return self.widths[-1]


def conv3(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 3x3 convolution, batch norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return *x* (B, C, H, W) bilinearly resized to (height, width)."""
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class Linear(nn.Module):
    """1x1 convolution on the concatenated, resized features, computed per level (logits upsampled and summed)."""

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(c, outputs, 1, bias=i == 0) for i, c in enumerate(widths))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        size = cast(tuple[int, int], tuple(features[-1].shape[-2:]))
        logits = [resize(level(f), size) for level, f in zip(self.levels, features)]
        return torch.stack(logits).sum(0)


class Cascade(Linear):
    """The same, logits added up from coarse to fine, each sum resized to the next size: a third of the work."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        first, *rest = (level(f) for level, f in zip(self.levels, features))
        total = cast(Tensor, first)
        for logits in rest:
            total = resize(total, tuple(logits.shape[-2:])) + logits
        return total


class MixConv(nn.Module):
    """Two 3x3 convolutions with a residual connection and plain batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False))
        self.norm: nn.Module = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.body(x)))


class Light(nn.Module):
    """Head A: project every level to d channels, then upsample, add and mix from coarse to fine (Figure B2A)."""

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        d = light_width(widths[-1])
        self.project = nn.ModuleList(nn.Conv2d(c, d, 1) for c in widths)
        self.mix = nn.ModuleList(MixConv(d) for _ in widths[1:])
        self.out = nn.Conv2d(d, outputs, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = self.project[0](features[0])
        for project, mix, feature in zip(self.project[1:], self.mix, features[1:]):
            level = project(feature)
            x = mix(resize(x, tuple(level.shape[-2:])) + level)
        return cast(Tensor, self.out(x))


def light_width(width: int) -> int:
    """Return head A's d: the paper's 256 for the paper's backbones, half the base width for smaller ones."""
    return 256 if width >= 256 else width // 2


class Sota(nn.Module):
    """Head B: resize, concatenate, convolutional decoder at full resolution (Figure B2B)."""

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        first, *rest = (max(8, c * widths[-1] // 512) for c in (512, 256, 128, 64, 16))
        self.reduce = conv3(sum(widths), first)
        pairs = zip([first, *rest], rest)
        self.blocks = nn.Sequential(*(nn.Sequential(conv3(a, b), conv3(b, b)) for a, b in pairs))
        self.out = nn.Conv2d(rest[-1], outputs, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        size = cast(tuple[int, int], tuple(features[-1].shape[-2:]))
        return cast(Tensor, self.out(self.blocks(self.reduce(torch.cat([resize(f, size) for f in features], 1)))))


class Decoder(nn.Module):
    """Head B on the last token map of a frozen vision transformer: 3x3 convolution to 512 first (appendix B.3).

    Its widths are the paper's at every size. The map is doubled before each block as long as it is coarser than the
    picture; the paper does not say where it is enlarged.
    """

    def __init__(self, widths: Sequence[int], outputs: int, scale: int) -> None:
        super().__init__()
        self.reduce, self.scale = conv3(widths[-1], 512), scale
        self.blocks = nn.Sequential(
            *(nn.Sequential(conv3(a, b), conv3(b, b)) for a, b in ((512, 256), (256, 128), (128, 64), (64, 16)))
        )
        self.out = nn.Conv2d(16, outputs, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x, left = self.reduce(features[-1]), self.scale
        for block in self.blocks:
            if left > 1:
                x, left = resize(x, (2 * x.shape[-2], 2 * x.shape[-1])), left // 2
            x = block(x)
        return cast(Tensor, self.out(x))


class Head(nn.Module):
    """A head with the meaning of its output channels.

    The linear, light, sota, decoder, deep and uper heads predict background / nucleus, or background / each type. The
    cisca head predicts three classes (background, interior, boundary between touching nuclei), four directional
    distances (which only teach it), the depth inside the nucleus (the marker) and the types.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        kind = kind_of(config.kind)
        told = {"scale": config.scale} if kind.scaled else {}
        apart = len(config.types) + 1 if config.kind == TYPED and config.types else 0
        self.trunk = cast(nn.Module, named(kind.network)(config.widths, self.channels - apart, **told))
        self.types = Cascade(config.widths, apart) if apart else None

    @property
    def instances(self) -> bool:
        """Whether the head tells touching nuclei apart."""
        return kind_of(self.config.kind).instances

    @property
    def channels(self) -> int:
        """Number of output channels."""
        types = len(self.config.types)
        return CENTRE + 1 + (types + 1 if types else 0) if self.instances else max(2, types + 1)

    @property
    def map_names(self) -> tuple[str, ...]:
        """Names of what :meth:`maps` returns, in order."""
        return ("foreground", *(("marker",) if self.instances else ()), *(f"type:{t}" for t in self.config.types))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, channels, H, W) from the backbone's features, coarse to fine."""
        logits: Tensor = self.trunk(features)
        together = logits if self.types is None else torch.cat((logits, self.types(features)), 1)
        return self.enlarged(together, features)

    def others(self, features: Sequence[Tensor]) -> Others:
        """Return what else is supervised in training: weights, and logits like those of :meth:`forward`."""
        found = self.trunk.others(features) if isinstance(self.trunk, (Deep, Uper)) else []
        return [(weight, self.enlarged(logits, features)) for weight, logits in found]

    def enlarged(self, logits: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Return *logits* as large as the image that *features* are of."""
        height, width = features[-1].shape[-2:]
        return resize(logits, (height * self.config.scale, width * self.config.scale))

    def maps(self, logits: Tensor) -> Tensor:
        """Return the named maps (B, len(map_names), H, W) in [0, 1] of *logits*, in fp32."""
        logits = logits.float().contiguous()  # channel by channel, as the maps are; also quicker
        if not self.instances:
            p = softmax(logits)
            return torch.cat((1 - p[:, :1], p[:, 1:]), 1) if self.config.types else p[:, 1:]
        p = softmax(logits[:, :3])
        marker = logits[:, CENTRE].sigmoid()
        types = softmax(logits[:, CENTRE + 1 :])[:, 1:] if self.config.types else logits[:, :0]
        return torch.cat((1 - p[:, :1], marker[:, None], types), 1)


def softmax(logits: Tensor) -> Tensor:
    """Return the probabilities of *logits* (B, K, H, W).

    Written out: on a CPU, torch's softmax over channels depends, in the last bit, on how threads share the pixels.
    """
    weights = (logits - logits.amax(1, keepdim=True)).contiguous().exp()
    return weights / weights.sum(1, keepdim=True)
