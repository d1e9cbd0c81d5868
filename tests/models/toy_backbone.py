"""A backbone in one file: a convolution and a gated, modulated one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.backbone import FEATURE_TIMESTEP, Backbone, Folded, set_gates


@dataclass(frozen=True)
class ToyConfig:
    width: int
    condition: int = 0
    channels: int = 3

    @property
    def feature_widths(self) -> tuple[int, ...]:
        return self.width, self.width

    @property
    def deepest_width(self) -> int:
        return self.width

    @property
    def scale(self) -> int:
        return 2

    def in_latents(self, channels: int) -> ToyConfig:
        return dataclasses.replace(self, channels=channels)


class ToyBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(width, width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return x + F.gelu(self.conv(x)) * self.modulation(c)[:, :, None, None]


class Toy(Backbone):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(config.channels, config.width, 3, stride=2, padding=1)
        self.timestep = nn.Linear(1, config.width)
        self.feature = nn.Linear(config.condition, config.width) if config.condition else None
        self.block = ToyBlock(config.width)
        self.output = nn.Conv2d(config.width, 4 * config.channels, 1)
        self.zero_start()

    def condition(self, t: Tensor, z: Tensor | None) -> Tensor:
        c = self.timestep(t[:, None] / 1000)
        return c if z is None or self.feature is None else c + self.feature(z)

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        return F.pixel_shuffle(self.output(self.block(self.stem(x), self.condition(t, z))), 2)

    def both(self, x: Tensor, z: Tensor | None, timestep: int) -> tuple[Tensor, list[Tensor]]:
        deepest = self.stem(x)
        return deepest, [deepest, self.block(deepest, self.condition(x.new_full((len(x),), timestep), z))]

    def fold(self, timestep: int = FEATURE_TIMESTEP) -> Folded:
        return FoldedToy(self, timestep)

    def blocks(self) -> list[nn.Module]:
        return [self.block]

    def open_gates(self, gate: float = 0.5) -> None:
        set_gates(self.block.modulation, 0, 1, gate)

    def zero_start(self) -> None:
        for layer in (self.block.modulation, self.output):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


class FoldedToy(Folded):
    def __init__(self, toy: Toy, timestep: int) -> None:
        super().__init__()
        self.stem, self.conv = toy.stem, toy.block.conv
        with torch.no_grad():
            t = torch.full((1,), timestep, dtype=torch.float32, device=toy.stem.weight.device)
            self.gate = nn.Parameter(toy.block.modulation(toy.condition(t, None))[:, :, None, None])

    def encode(self, x: Tensor) -> tuple[Tensor, Any]:
        return self.stem(x), None

    def decode(self, deepest: Tensor, rest: Any) -> list[Tensor]:
        return [deepest, deepest + F.gelu(self.conv(deepest)) * self.gate]


SIZES: Mapping[str, Any] = {"T": lambda condition=0: ToyConfig(8, condition)}
