"""A plain vision transformer as a backbone: a frozen foundation model under the heads, or a small one pretrained here.

It sees the tile resized so that its patches are a grid of 16, 32 or 64 a side, and serves the tokens of some of its
blocks as maps. Under masked diffusion it fills in masked pictures without being told t: masked image modelling, after
which it stands in for a foundation model where none is at hand.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.backbone import FEATURE_TIMESTEP, TILE, Backbone, Folded
from wsipipe.models.checks import WIDEST, expect, many, number, whole
from wsipipe.models.encoders import IMAGENET
from wsipipe.models.vit import HEAD, ViT

GRIDS = (16, 32, 64)
"""Patches along a side of a tile."""


@dataclass(frozen=True)
class ViTConfig:
    """Size of a backbone.

    Attributes
    ----------
    width, depth, patch, hidden, registers : int
        Of the network; *hidden* is that of the first layer of an MLP.
    packed, scaled : bool
        Packed SwiGLU; layer scale.
    prefix : int
        Class and register tokens with positions of their own.
    squares : int
        Patches that the positions were made for.
    grid : {16, 32, 64}
        Patches along a side of a 256 px tile, which is resized to as many times *patch*.
    taken : tuple of int
        Blocks whose tokens are the maps.
    mean, std : three floats
        Of the pictures that it takes.
    branch : int
        Width of the convolutional branch beside it (the CNN adapter of PFM-DenseBench); 0 without.
    condition : int
        Always 0.
    channels : int
        Of the image: 3; of latents: 4.
    """

    width: int
    depth: int
    patch: int
    hidden: int
    grid: int
    squares: int
    taken: tuple[int, ...]
    registers: int = 0
    prefix: int = 1
    packed: bool = False
    scaled: bool = True
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    branch: int = 0
    condition: int = 0
    channels: int = 3

    def __post_init__(self) -> None:
        good = whole(HEAD, WIDEST)(self.width) and not self.width % HEAD
        expect(good, "backbone's width", self.width, f"a multiple of {HEAD}, up to {WIDEST}")
        expect(whole(1, 200)(self.depth), "backbone's depth", self.depth, "1 to 200 blocks")
        expect(whole(1, 64)(self.patch), "backbone's patch", self.patch, "1 to 64 pixels")
        expect(whole(2, 4 * WIDEST)(self.hidden), "backbone's hidden width", self.hidden, f"2 to {4 * WIDEST}")
        expect(self.grid in GRIDS, "backbone's grid", self.grid, f"one of {', '.join(map(str, GRIDS))}")
        expect(whole(1, 10**6)(self.squares), "backbone's positions", self.squares, "a square number")
        good = many(whole(0, self.depth - 1))(self.taken) and list(self.taken) == sorted(set(self.taken))
        expect(good, "backbone's taken blocks", self.taken, f"numbers that rise from 0 to {self.depth - 1}")
        expect(whole(0, 64)(self.registers), "backbone's registers", self.registers, "0 to 64")
        expect(whole(0, 65)(self.prefix), "backbone's prefix", self.prefix, "0 to 65")
        for name in ("mean", "std"):
            expect(many(number(-10, 10), 3)(getattr(self, name)), name, getattr(self, name), "three numbers")
        expect(whole(0, WIDEST)(self.branch), "backbone's branch", self.branch, "a width, or 0")
        expect(self.condition == 0, "backbone's condition", self.condition, "0: a ViT takes none")
        expect(self.channels == 3, "backbone's channels", self.channels, "3: a ViT works on pixels")

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of the maps: of the taken blocks, then of the branch."""
        return (self.width,) * len(self.taken) + ((2 * self.branch, self.branch) if self.branch else ())

    @property
    def deepest_width(self) -> int:
        """Channels of the last taken block."""
        return self.width

    @property
    def scale(self) -> int:
        """Pixels along a side of a patch, or of a pixel of the branch's finest map."""
        return 2 if self.branch else TILE // self.grid

    def in_latents(self, channels: int) -> ViTConfig:
        """Return the configuration for latents: ValueError, there is none."""
        return dataclasses.replace(self, channels=channels)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of the network's weights; layers beyond the first are like it."""
        w = self.width
        found: dict[str, tuple[int, ...]] = {
            "pos_embed": (1, self.squares + self.prefix, w),
            "patch_embed.proj.weight": (w, 3, self.patch, self.patch),
            "blocks.0.mlp.fc1.weight": (self.hidden, w),
            "blocks.0.mlp.fc2.weight": (w, self.hidden // 2 if self.packed else self.hidden),
            f"blocks.{self.depth - 1}.norm1.weight": (w,),
        }
        if self.registers:
            found["reg_token"] = (1, self.registers, w)
        if self.scaled:
            found["blocks.0.ls1.gamma"] = (w,)
        return found


def config_of(network: ViT, **other: object) -> ViTConfig:
    """Return the configuration of a *network* that was read; *other* says what its weights do not: grid, taken …"""
    mlp = network.blocks[0].mlp
    return ViTConfig(
        width=network.width,
        depth=len(network.blocks),
        patch=int(network.patch_embed.proj.kernel_size[0]),
        hidden=mlp.fc1.out_features,  # type: ignore[union-attr, arg-type]
        squares=network.squares,
        registers=network.prefix - 1,
        prefix=network.pos_embed.shape[1] - network.squares,
        packed=bool(mlp.packed),  # type: ignore[union-attr]
        scaled="blocks.0.ls1.gamma" in dict(network.named_parameters()),
        **other,  # type: ignore[arg-type]
    )


def taken_of(depth: int, which: str) -> tuple[int, ...]:
    """Return the blocks that ``last``, ``shallow``, ``deep`` or ``mixed`` means of a network of *depth* blocks.

    The last block; or four, evenly spread over the first half, over the last half, or over all ("Mind the Gap").
    """
    if which == "last":
        return (depth - 1,)
    half = max(1, depth // 2)
    first, count = {"shallow": (0, half), "deep": (depth - half, half), "mixed": (0, depth)}[which]
    return tuple(sorted({first + max(0, (k + 1) * count // 4 - 1) for k in range(4)}))


def _sized(width: int, depth: int) -> ViTConfig:
    return ViTConfig(width, depth, 8, 4 * width, 32, 1024, taken_of(depth, "mixed"), scaled=False)


def vit_t(condition: int = 0) -> ViTConfig:
    """Return the smallest size, within 5 % of the unconditioned CMD-T's parameters."""
    return dataclasses.replace(_sized(128, 10), condition=condition)


def vit_s(condition: int = 0) -> ViTConfig:
    """Return the small size, within 6 % of the unconditioned CMD-S's parameters."""
    return dataclasses.replace(_sized(256, 10), condition=condition)


def vit_b(condition: int = 0) -> ViTConfig:
    """Return a ViT-B with patches of 8 px."""
    return dataclasses.replace(_sized(768, 12), condition=condition)


def vit_l(condition: int = 0) -> ViTConfig:
    """Return a ViT-L with patches of 8 px."""
    return dataclasses.replace(_sized(1024, 24), condition=condition)


SIZES = {"T": vit_t, "S": vit_s, "B": vit_b, "L": vit_l}


class Residual(nn.Module):
    """A residual block as ResNetV2's: norm and ReLU before each convolution."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        groups = (max(1, inputs // 8), max(1, width // 8))
        self.norm1, self.norm2 = nn.GroupNorm(groups[0], inputs), nn.GroupNorm(groups[1], width)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, width, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        return cast(Tensor, self.shortcut(y) + self.conv2(F.relu(self.norm2(self.conv1(y)))))


class Branch(nn.Module):
    """Convolutions beside a frozen ViT: maps at a half and a quarter of the tile's resolution, coarse to fine."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.down = Residual(width, 2 * width)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stem(x)
        return [self.down(fine), fine]


class ViTBackbone(Backbone):
    """The backbone; its features are the normalised tokens after some of its blocks, as maps of one size."""

    config: ViTConfig
    output: nn.Linear

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.vit = ViT(config.shapes())
        self.branch = Branch(config.branch) if config.branch else None
        self.output = nn.Linear(config.width, 3 * (TILE // config.grid) ** 2)
        nn.init.trunc_normal_(self.vit.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.vit.cls_token, std=0.02)
        self.zero_start()

    def zero_start(self) -> None:
        """Set the last layer to zero."""
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def blocks(self) -> list[nn.Module]:
        """Return all blocks in the order they run."""
        return list(self.vit.blocks)

    def open_gates(self, gate: float = 0.5) -> None:
        """Do nothing: its blocks have no gates."""

    def tokens(self, x: Tensor) -> list[Tensor]:
        """Return the tokens (B, N, C) of images in [-1, 1] after the taken blocks, normalised, class token first."""
        y, kept = self.vit.placed(self._input(x)), []
        for k, block in enumerate(self.vit.blocks):
            y = block(y)
            if k in self.config.taken:
                kept.append(self.vit.norm(y))
            if k == self.config.taken[-1]:
                break
        return kept

    def _input(self, x: Tensor) -> Tensor:
        """Return images (B, 3, H, W) in [-1, 1] as the network takes them: resized, with its mean and spread."""
        side, patch = self.config.grid * self.config.patch, self.config.patch
        size = [max(patch, round(n * side / TILE / patch) * patch) for n in x.shape[-2:]]
        if size != list(x.shape[-2:]):
            x = F.interpolate(x.float(), size, mode="bilinear", antialias=True, align_corners=False).to(x.dtype)
        mean, std = (torch.tensor(v, device=x.device, dtype=x.dtype).view(3, 1, 1) for v in self._colours())
        return (x / 2 + 0.5 - mean) / std

    def _colours(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.config.mean, self.config.std

    def _maps(self, x: Tensor) -> list[Tensor]:
        height, width = (max(1, round(n * self.config.grid / TILE)) for n in x.shape[-2:])
        squares = [t[:, self.vit.prefix :].transpose(1, 2).reshape(len(x), -1, height, width) for t in self.tokens(x)]
        return squares + (self.branch(x) if self.branch else [])

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        """Reconstruct the image from its last map; neither *t* nor *z* is told to the network."""
        last = self._maps(x)[len(self.config.taken) - 1]
        return F.pixel_shuffle(self.output(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), TILE // self.config.grid)

    def both(self, x: Tensor, z: Tensor | None, timestep: int) -> tuple[Tensor, list[Tensor]]:
        """Return the map of the last taken block, and all maps."""
        maps = self._maps(x)
        return maps[len(self.config.taken) - 1], maps

    def fold(self, timestep: int = FEATURE_TIMESTEP) -> Folded:
        """Return the same network: there is nothing to fold."""
        return FoldedViT(self)


class FoldedViT(Folded):
    """A ViT that is asked for its features."""

    def __init__(self, backbone: ViTBackbone) -> None:
        super().__init__()
        self.network = backbone

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the map of the last taken block, and all maps."""
        return self.network.both(x, None, FEATURE_TIMESTEP)

    def decode(self, deepest: Tensor, rest: list[Tensor]) -> list[Tensor]:
        """Return the maps that heads use."""
        return rest
