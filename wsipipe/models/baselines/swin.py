"""Swin V2 as a backbone: its stages are the maps, with the names of timm, so that timm need not be installed."""

from __future__ import annotations

import functools
import math
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

HEAD = 32
"""Channels of a head of attention."""


@dataclass(frozen=True)
class SwinConfig(Stages):
    """Size of the network.

    Attributes
    ----------
    width : int
        Channels of the first stage, doubled from stage to stage; they are a 4th to a 32nd as large as the picture.
    depths : four ints
        Blocks of the stages.
    window : int
        Side of the windows of attention, smaller where a map is.
    trained : four ints
        Sides of the windows that the weights were trained with, by stage; 0: those of *window*.
    taken, mean, std, condition, channels
        As of :class:`wsipipe.models.baselines.convnext.ConvNeXtConfig`.
    """

    width: int
    depths: tuple[int, ...]
    window: int = 8
    trained: tuple[int, ...] = (0, 0, 0, 0)
    taken: tuple[int, ...] = (0, 1, 2, 3)
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    condition: int = 0
    channels: int = 3

    def __post_init__(self) -> None:
        good = whole(HEAD, WIDEST // 8)(self.width) and not self.width % HEAD
        expect(good, "backbone's width", self.width, f"a multiple of {HEAD}, up to {WIDEST // 8}")
        expect(many(whole(1, 100), 4)(self.depths), "backbone's depths", self.depths, "four numbers of blocks")
        expect(whole(2, 64)(self.window), "backbone's window", self.window, "2 to 64")
        expect(many(whole(0, 64), 4)(self.trained), "backbone's trained windows", self.trained, "four numbers to 64")
        self.check_rest("Swin")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the stages."""
        return tuple(self.width * 2**k for k in range(4))


def read_config(shapes: Mapping[str, tuple[int, ...]], **other: object) -> SwinConfig:
    """Return the configuration of weights under timm's names; KeyError or ValueError when they are not a Swin V2's."""
    width = shapes["patch_embed.proj.bias"][0]
    depths = tuple(
        len([name for name in shapes if name.startswith(f"layers.{k}.blocks.") and name.endswith(".logit_scale")])
        for k in range(4)
    )
    return SwinConfig(width, depths, **other)  # type: ignore[arg-type]


SIZES = {
    "T": lambda condition=0: SwinConfig(32, (2, 2, 2, 2), condition=condition),
    "S": lambda condition=0: SwinConfig(64, (2, 2, 2, 2), condition=condition),
    "B": lambda condition=0: SwinConfig(128, (2, 2, 18, 2), condition=condition),
    "L": lambda condition=0: SwinConfig(192, (2, 2, 18, 2), condition=condition),
}
"""B and L are Swin's own."""


@functools.cache
def places(window: tuple[int, int], trained: int) -> tuple[Tensor, Tensor]:
    """Return the log-spaced distances (2h-1, 2w-1, 2) within a window, and which one each pair of pixels has (N, N)."""
    h, w = window
    y, x = (torch.arange(-(n - 1), n, dtype=torch.float32) / max((trained or n) - 1, 1) for n in window)
    table = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1) * 8
    table = table.sign() * torch.log2(table.abs() + 1) / 3
    rows, columns = (axis.flatten() for axis in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))
    dy, dx = rows[:, None] - rows + h - 1, columns[:, None] - columns + w - 1
    return table, dy * (2 * w - 1) + dx


class WindowAttention(nn.Module):
    """Attention of cosines within windows, with a bias that an MLP gives for each distance."""

    def __init__(self, width: int, trained: int) -> None:
        super().__init__()
        heads = width // HEAD
        self.heads, self.trained = heads, trained
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10)))
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor, window: tuple[int, int], mask: Tensor | None) -> Tensor:  # (windows, N, C)
        n, area, c = x.shape
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        q, k, v = F.linear(x, self.qkv.weight, bias).view(n, area, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        weights = weights * self.logit_scale.clamp(max=math.log(100)).exp()
        table, index = (t.to(x.device) for t in places(window, self.trained))
        apart = self.cpb_mlp(table.to(x.dtype)).view(-1, self.heads)[index.flatten()].view(area, area, -1)
        weights = weights + 16 * apart.permute(2, 0, 1).sigmoid()
        if mask is not None:  # (windows of an image, N, N)
            weights = (weights.view(-1, len(mask), self.heads, area, area) + mask[:, None]).flatten(0, 1)
        return cast(Tensor, self.proj((weights.softmax(-1) @ v).transpose(1, 2).reshape(n, area, c)))


class MLP(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


def windows_of(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Return the windows (n, h * w, C) of maps (B, H, W, C), whose sides are multiples of theirs."""
    b, height, width, c = x.shape
    h, w = window
    y = x.view(b, height // h, h, width // w, w, c).transpose(2, 3)
    return y.reshape(-1, h * w, c)


def put_together(x: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return the maps (B, H, W, C) of *windows* (n, h * w, C)."""
    (h, w), (height, width) = window, size
    y = x.view(-1, height // h, width // w, h, w, x.shape[-1]).transpose(2, 3)
    return y.reshape(-1, height, width, x.shape[-1])


def apart(size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], like: Tensor) -> Tensor | None:
    """Return what keeps pixels apart (windows, N, N) that a shift brought into one window; None without a shift."""
    if not any(shift):
        return None
    sides = [torch.zeros(n, device=like.device) for n in size]
    for side, w, s in zip(sides, window, shift):
        if s:
            side[-w:] = 1
            side[-s:] = 2
    region = windows_of((3 * sides[0][:, None] + sides[1])[None, :, :, None], window)[..., 0]
    return (region[:, None] != region[:, :, None]).to(like.dtype) * -100


class Block(nn.Module):
    """Attention within windows and MLP, each normalised and then added to its input."""

    def __init__(self, width: int, trained: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.window, self.shifted = window, shifted
        self.attn, self.mlp = WindowAttention(width, trained), MLP(width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C)
        x = x + self.norm1(self._attention(x))
        return cast(Tensor, x + self.norm2(self.mlp(x)))

    def _attention(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        window = min(self.window, height), min(self.window, width)
        sides = ((height, window[0]), (width, window[1]))
        shift = [self.window // 2 if self.shifted and n > w else 0 for n, w in sides]
        down, right = (-n % w for n, w in sides)
        y = torch.roll(x, (-shift[0], -shift[1]), (1, 2)) if any(shift) else x
        y = F.pad(y, (0, 0, 0, right, 0, down)) if down or right else y
        size = height + down, width + right
        y = self.attn(windows_of(y, window), window, apart(size, window, (shift[0], shift[1]), y))
        y = put_together(y, window, size)
        y = y[:, :height, :width]
        return torch.roll(y, (shift[0], shift[1]), (1, 2)) if any(shift) else y


class Merging(nn.Module):
    """Four pixels to one of twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction, self.norm = nn.Linear(4 * width, 2 * width, bias=False), nn.LayerNorm(2 * width)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C)
        b, h, w, c = x.shape
        x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2))
        y = x.view(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return cast(Tensor, self.norm(self.reduction(y)))


class Stage(nn.Module):
    """Blocks, every other one with shifted windows, after the map has been halved."""

    def __init__(self, width: int, depth: int, trained: int, window: int, first: bool) -> None:
        super().__init__()
        self.downsample = nn.Identity() if first else Merging(width // 2)
        self.blocks = nn.Sequential(*(Block(width, trained, window, k % 2 == 1) for k in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.blocks(self.downsample(x)))


class Patches(nn.Module):
    """The convolution that turns patches of 4 px into tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, h, w, C)
        return cast(Tensor, self.norm(self.proj(x).permute(0, 2, 3, 1)))


class Swin(PlainBackbone):
    """The network; its maps are those after the taken stages, normalised."""

    config: SwinConfig

    def __init__(self, config: SwinConfig) -> None:
        super().__init__(config)
        self.patch_embed = Patches(config.width)
        parts = list(zip(config.widths, config.depths, config.trained))[: config.taken[-1] + 1]
        self.layers = nn.ModuleList(Stage(w, n, t, config.window, k == 0) for k, (w, n, t) in enumerate(parts))
        self.finish()

    def blocks(self) -> list[nn.Module]:
        """Return the blocks in the order they run."""
        return [block for layer in self.layers for block in cast(Stage, layer).blocks]

    def maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the map after the last taken stage, and those of all taken ones."""
        y, found = self.patch_embed(as_imagenet(x, self.config.mean, self.config.std)), []
        for k, layer in enumerate(self.layers):
            y = layer(y)
            if k in self.config.taken:
                found.append(normalised(y.permute(0, 3, 1, 2)))
        return found[-1], found[::-1]
