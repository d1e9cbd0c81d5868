"""ViT-Adapter (Chen et al. 2023): convolutions beside a plain vision transformer, which exchange with it four times.

A spatial prior module gives maps of an 8th, a 16th and a 32nd; injectors bring them to the tokens and extractors bring
the tokens back, both by deformable attention, which is written out here with torch's own sampling. The maps of a 4th to
a 32nd go to the head.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.backbone import TILE
from wsipipe.models.baselines.plain import PlainBackbone, as_imagenet, check_plain
from wsipipe.models.checks import WIDEST, expect, whole
from wsipipe.models.vit import HEAD, Layer, PatchEmbed

STEPS, POINTS, PATCH = 4, 4, 16
Size = tuple[int, int]


@dataclass(frozen=True)
class ViTAdapterConfig:
    """Size of the network.

    Attributes
    ----------
    width, depth : int
        Of the transformer, whose patches are 16 px; the depth is a multiple of four.
    stem : int
        Channels of the first convolutions.
    heads : int
        Of deformable attention.
    condition, channels : int
        Always 0 and 3.
    """

    width: int
    depth: int
    stem: int = 64
    heads: int = 12
    condition: int = 0
    channels: int = 3

    def __post_init__(self) -> None:
        good = whole(HEAD, WIDEST)(self.width) and not self.width % HEAD
        expect(good, "backbone's width", self.width, f"a multiple of {HEAD}, up to {WIDEST}")
        good = whole(STEPS, 200)(self.depth) and not self.depth % STEPS
        expect(good, "backbone's depth", self.depth, f"a multiple of {STEPS}, up to 200")
        expect(whole(4, 1024)(self.stem), "backbone's stem", self.stem, "4 to 1024 channels")
        good = whole(1, 64)(self.heads) and not self.width % (2 * self.heads)
        expect(good, "backbone's heads", self.heads, "a number that divides half the width")
        check_plain(self.condition, self.channels, "ViT-Adapter")

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return (self.width,) * 4

    @property
    def deepest_width(self) -> int:
        """Channels of the coarsest map."""
        return self.width

    @property
    def scale(self) -> int:
        """The finest map is a 4th as large as the picture."""
        return 4

    def in_latents(self, channels: int) -> ViTAdapterConfig:
        """Return the configuration for latents: ValueError, there is none."""
        return dataclasses.replace(self, channels=channels)


SIZES = {
    "T": lambda condition=0: ViTAdapterConfig(128, 4, 16, 4, condition),
    "S": lambda condition=0: ViTAdapterConfig(256, 8, 32, 8, condition),
    "B": lambda condition=0: ViTAdapterConfig(768, 12, 64, 12, condition),
    "L": lambda condition=0: ViTAdapterConfig(1024, 24, 64, 16, condition),
}
"""B and L are the authors' own; with the head ``uper`` they have the parameters that the CMD paper gives them."""


class Deformable(nn.Module):
    """Attention of each query to a few places of several maps, which it chooses itself."""

    def __init__(self, width: int, heads: int, levels: int) -> None:
        super().__init__()
        self.heads, self.levels = heads, levels
        self.sampling_offsets = nn.Linear(width, heads * levels * POINTS * 2)
        self.attention_weights = nn.Linear(width, heads * levels * POINTS)
        self.value_proj, self.output_proj = nn.Linear(width, width // 2), nn.Linear(width // 2, width)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        angles = torch.arange(heads) * (2 * math.pi / heads)
        grid = torch.stack((angles.cos(), angles.sin()), -1)
        grid = grid / grid.abs().max(-1, keepdim=True).values
        steps = grid.view(heads, 1, 1, 2) * torch.arange(1, POINTS + 1).view(1, 1, POINTS, 1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(steps.expand(heads, levels, POINTS, 2).flatten())

    def forward(self, query: Tensor, places: Tensor, values: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Return what each of *query* (B, Q, C) finds around its place (Q, 2; 0 to 1) in *values* (B, N, C)."""
        b, q, _ = query.shape
        h, n = self.heads, self.levels
        value = self.value_proj(values).view(b, values.shape[1], h, -1)
        offsets = self.sampling_offsets(query).view(b, q, h, n, POINTS, 2)
        weights = self.attention_weights(query).view(b, q, h, n * POINTS).softmax(-1)
        found, start = [], 0
        for k, (height, width) in enumerate(sizes):
            stop = start + height * width
            level = value[:, start:stop].permute(0, 2, 3, 1).reshape(b * h, -1, height, width)
            at = places[:, None, None] + offsets[:, :, :, k] / torch.tensor((width, height), device=query.device)
            grid = (2 * at - 1).transpose(1, 2).flatten(0, 1).to(level.dtype)  # (B heads, Q, points, 2)
            found.append(F.grid_sample(level, grid, "bilinear", "zeros", align_corners=False))
            start = stop
        seen = torch.cat(found, -1)  # (B heads, c, Q, levels points)
        seen = (seen * weights.transpose(1, 2).reshape(b * h, 1, q, -1)).sum(-1)
        return cast(Tensor, self.output_proj(seen.view(b, -1, q).transpose(1, 2)))


def centres(sizes: Sequence[Size], device: torch.device) -> Tensor:
    """Return the centres (N, 2) of the pixels of maps of *sizes*, x and y in 0..1."""
    found = []
    for height, width in sizes:
        y, x = ((torch.arange(n, device=device) + 0.5) / n for n in (height, width))
        found.append(torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).view(-1, 2))
    return torch.cat(found)


class Injector(nn.Module):
    """The maps of the prior to the tokens; starts without effect."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query_norm, self.feat_norm = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Deformable(width, heads, 3)
        self.gamma = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, grid: Size, c: Tensor, sizes: Sequence[Size]) -> Tensor:
        places = centres([grid], x.device)
        return cast(Tensor, x + self.gamma * self.attn(self.query_norm(x), places, self.feat_norm(c), sizes))


class ConvFFN(nn.Module):
    """An MLP with a depthwise convolution within each of the three maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width // 4
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, c: Tensor, sizes: Sequence[Size]) -> Tensor:
        parts = self.fc1(c).split([h * w for h, w in sizes], 1)
        maps = [p.transpose(1, 2).reshape(len(c), -1, *size) for p, size in zip(parts, sizes)]
        return cast(Tensor, self.fc2(F.gelu(torch.cat([self.dwconv(m).flatten(2).transpose(1, 2) for m in maps], 1))))


class Extractor(nn.Module):
    """The tokens to the maps of the prior."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query_norm, self.feat_norm = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.ffn = Deformable(width, heads, 1), ConvFFN(width)
        self.ffn_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, c: Tensor, sizes: Sequence[Size], x: Tensor, grid: Size) -> Tensor:
        c = c + self.attn(self.query_norm(c), centres(sizes, c.device), self.feat_norm(x), [grid])
        return cast(Tensor, c + self.ffn(self.ffn_norm(c), sizes))


def _down(inputs: int, outputs: int, stride: int = 2) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Prior(nn.Module):
    """Convolutions on the picture: maps of a 4th, and tokens of an 8th, a 16th and a 32nd."""

    def __init__(self, stem: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_down(3, stem), _down(stem, stem, 1), _down(stem, stem, 1), nn.MaxPool2d(3, 2, 1))
        self.conv2, self.conv3, self.conv4 = _down(stem, 2 * stem), _down(2 * stem, 4 * stem), _down(4 * stem, 4 * stem)
        self.fc = nn.ModuleList(nn.Conv2d(k * stem, width, 1) for k in (1, 2, 4, 4))

    def forward(self, x: Tensor) -> list[Tensor]:
        c1 = self.stem(x)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        return [fc(c) for fc, c in zip(self.fc, (c1, c2, c3, self.conv4(c3)))]


class ViTAdapter(PlainBackbone):
    """The network; its maps are those of the adapter with the tokens added, normalised."""

    config: ViTAdapterConfig

    def __init__(self, config: ViTAdapterConfig) -> None:
        super().__init__(config)
        w, h = config.width, config.heads
        self.patch_embed = PatchEmbed(w, PATCH)
        self.positions = nn.Parameter(torch.zeros(1, (TILE // PATCH) ** 2, w))
        self.layers = nn.ModuleList(Layer(w, 4 * w, packed=False, scaled=False) for _ in range(config.depth))
        self.prior = Prior(config.stem, w)
        self.level_embed = nn.Parameter(torch.zeros(3, w))
        self.injectors = nn.ModuleList(Injector(w, h) for _ in range(STEPS))
        self.extractors = nn.ModuleList(Extractor(w, h) for _ in range(STEPS + 2))
        self.up = nn.ConvTranspose2d(w, w, 2, 2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for _ in range(4))
        nn.init.trunc_normal_(self.positions, std=0.02)
        nn.init.normal_(self.level_embed)
        self.finish()

    def blocks(self) -> list[nn.Module]:
        """Return the blocks of the transformer in the order they run."""
        return list(self.layers)

    def maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the coarsest map, and all four."""
        x = as_imagenet(x)
        c1, *rest = self.prior(x)
        sizes = [(int(c.shape[-2]), int(c.shape[-1])) for c in rest]
        c = torch.cat([m.flatten(2).transpose(1, 2) + e for m, e in zip(rest, self.level_embed)], 1)
        grid = int(x.shape[-2] // PATCH), int(x.shape[-1] // PATCH)
        y = self.patch_embed(x) + self._positions(grid)
        each = len(self.layers) // STEPS
        for k in range(STEPS):
            y = self.injectors[k](y, grid, c, sizes)
            for layer in self.layers[k * each : (k + 1) * each]:
                y = layer(y)
            for extractor in self.extractors[k : k + 1] if k < STEPS - 1 else self.extractors[k:]:
                c = extractor(c, sizes, y, grid)
        parts = torch.split(c, [h * w for h, w in sizes], 1)
        fine = [p.transpose(1, 2).reshape(len(x), -1, *size) for p, size in zip(parts, sizes)]
        found = [self.up(fine[0]) + c1, *fine]
        shown = y.transpose(1, 2).reshape(len(x), -1, *grid)
        found = [m + F.interpolate(shown, m.shape[-2:], mode="bilinear", align_corners=False) for m in found]
        found = [norm(m) for norm, m in zip(self.norms, found)]
        return found[-1], found[::-1]

    def _positions(self, grid: Size) -> Tensor:
        """Return the positions of the tokens, resized to the grid."""
        side = TILE // PATCH
        if grid == (side, side):
            return self.positions
        square = self.positions.transpose(1, 2).reshape(1, -1, side, side)
        return F.interpolate(square, grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
