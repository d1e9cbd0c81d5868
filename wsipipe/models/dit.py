"""DiT, the diffusion transformer (Peebles and Xie, 2023), as a backbone of masked diffusion.

Blocks with adaLN-Zero, as published; the embedding of a class is replaced by the projection of the foundation-model
feature. On latents its patches are 2x2, as in DiT-B/2; on pixels 8x8, the squares that are masked. Shape letters: B
batch, N tokens, C channels, D width of the condition.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.backbone import FEATURE_TIMESTEP, Backbone, Folded, set_gates
from wsipipe.models.checks import WIDEST, expect, whole
from wsipipe.models.condition import Condition

HEAD = 64
"""Channels of a head of attention."""
MAPS = 6
"""Maps that heads use, from evenly spread blocks; the last block's is among them."""
PIXELS, LATENTS = 8, 2
"""Side of a patch."""


@dataclass(frozen=True)
class DiTConfig:
    """Size of a backbone.

    Attributes
    ----------
    width : int
        Channels of a token, a multiple of 64.
    depth : int
        Blocks.
    patch : int
        Side of a patch in pixels, or in latents.
    condition : int
        Width D of the foundation-model feature; 0 for an unconditioned backbone.
    channels : int
        Of the image: 3; of latents: 4.
    """

    width: int
    depth: int
    patch: int = PIXELS
    condition: int = 0
    channels: int = 3

    def __post_init__(self) -> None:
        good = whole(HEAD, WIDEST)(self.width) and not self.width % HEAD
        expect(good, "backbone's width", self.width, f"a multiple of {HEAD}, up to {WIDEST}")
        expect(whole(1, 200)(self.depth), "backbone's depth", self.depth, "1 to 200 blocks")
        expect(whole(1, 64)(self.patch), "backbone's patch", self.patch, "1 to 64 pixels")
        expect(whole(0, 2 * WIDEST)(self.condition), "backbone's condition", self.condition, "a width, or 0")
        expect(whole(1, 64)(self.channels), "backbone's channels", self.channels, "1 to 64")

    @property
    def taken(self) -> tuple[int, ...]:
        """Blocks whose outputs the heads see."""
        return tuple(dict.fromkeys(max(0, (k + 1) * self.depth // MAPS - 1) for k in range(MAPS)))

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of the maps: all alike, and all of one size."""
        return (self.width,) * len(self.taken)

    @property
    def deepest_width(self) -> int:
        """Channels of the last block."""
        return self.width

    @property
    def scale(self) -> int:
        """A token stands for a patch."""
        return self.patch

    def in_latents(self, channels: int) -> DiTConfig:
        """Return the configuration for latents of so many channels."""
        return dataclasses.replace(self, channels=channels, patch=LATENTS)


def dit_t(condition: int = 0) -> DiTConfig:
    """Return the smallest size, within 5 % of CMD-T's parameters."""
    return DiTConfig(128, 7, condition=condition)


def dit_s(condition: int = 0) -> DiTConfig:
    """Return the small size, within 5 % of CMD-S's parameters."""
    return DiTConfig(192, 12, condition=condition)


def dit_b(condition: int = 1024) -> DiTConfig:
    """Return DiT-B (131 M with D = 1024)."""
    return DiTConfig(768, 12, condition=condition)


def dit_l(condition: int = 1024) -> DiTConfig:
    """Return DiT-L (459 M with D = 1024)."""
    return DiTConfig(1024, 24, condition=condition)


SIZES = {"T": dit_t, "S": dit_s, "B": dit_b, "L": dit_l}


def positions(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Return the fixed sinusoidal embedding (N, *channels*) of a grid's places, row by row, where and as *like* is."""
    omega = 1e4 ** -(torch.arange(channels // 4, device=like.device, dtype=torch.float32) / (channels // 4))
    rows, columns = (torch.arange(n, device=like.device, dtype=torch.float32)[:, None] * omega for n in (height, width))
    y = torch.cat((rows.sin(), rows.cos()), 1)[:, None].expand(-1, width, -1)
    x = torch.cat((columns.sin(), columns.cos()), 1)[None].expand(height, -1, -1)
    return torch.cat((x, y), -1).reshape(height * width, channels).to(like.dtype)


def attention(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return softmax(q k) v of tokens (B, N, C), q, k and v made by one product with *weight* (3C, C)."""
    b, n, c = x.shape
    q, k, v = F.linear(x, weight, bias).view(b, n, 3, c // HEAD, HEAD).permute(2, 0, 3, 1, 4)  # (B, heads, N, 64)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)


def norm(x: Tensor) -> Tensor:
    """Return tokens normalised over their channels, without learned factors."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class DiTBlock(nn.Module):
    """Attention and MLP, each modulated before and gated after (adaLN-Zero)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)  # after SiLU: shift, scale, gate of attention, then of the MLP

    def forward(self, x: Tensor, c: Tensor) -> Tensor:  # (B, N, C), (B, C)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(c))[:, None].chunk(6, dim=-1)
        y = attention(norm(x) * (1 + scale1) + shift1, self.qkv.weight, self.qkv.bias)
        x = x + self.proj(y) * gate1
        y = F.gelu(self.fc1(norm(x) * (1 + scale2) + shift2), approximate="tanh")
        return cast(Tensor, x + self.fc2(y) * gate2)


class FoldedDiTBlock(nn.Module):
    """A :class:`DiTBlock` for one constant condition."""

    def __init__(self, block: DiTBlock, c: Tensor) -> None:
        super().__init__()
        shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(F.silu(c)).chunk(6)  # (C,) each
        self.qkv, self.proj = _modulated(block.qkv, shift1, scale1), _gated(block.proj, gate1)
        self.fc1, self.fc2 = _modulated(block.fc1, shift2, scale2), _gated(block.fc2, gate2)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        x = x + self.proj(attention(norm(x), self.qkv.weight, self.qkv.bias))
        return cast(Tensor, x + self.fc2(F.gelu(self.fc1(norm(x)), approximate="tanh")))


def _modulated(layer: nn.Linear, shift: Tensor, scale: Tensor) -> nn.Linear:
    """Return *layer* as it acts on x · (1 + scale) + shift."""
    return _with(layer, layer.weight * (1 + scale), layer.bias + layer.weight @ shift)


def _gated(layer: nn.Linear, gate: Tensor) -> nn.Linear:
    """Return *layer* with what it gives multiplied by *gate*."""
    return _with(layer, layer.weight * gate[:, None], layer.bias * gate)


def _with(layer: nn.Linear, weight: Tensor, bias: Tensor) -> nn.Linear:
    new = copy.copy(layer)
    new._parameters = {"weight": nn.Parameter(weight), "bias": nn.Parameter(bias)}
    return new


class Output(nn.Module):
    """Last layers: modulated norm, zero-started linear layer to the patches' pixels."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)  # after SiLU: shift, scale
        self.linear = nn.Linear(width, values)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:  # (B, N, C), (B, C) -> (B, N, values)
        shift, scale = self.modulation(F.silu(c))[:, None].chunk(2, dim=-1)
        return cast(Tensor, self.linear(norm(x) * (1 + scale) + shift))


class DiT(Backbone):
    """The backbone; its features are the tokens after six of its blocks, as maps of one size."""

    config: DiTConfig
    output: Output

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(config.channels, config.width, config.patch, stride=config.patch)
        self.embedding = Condition(config.width, config.condition)
        self.layers = nn.ModuleList(DiTBlock(config.width) for _ in range(config.depth))
        self.output = Output(config.width, config.channels * config.patch**2)
        self.zero_start()

    def zero_start(self) -> None:
        """Close every block's gates and set the last layer to zero."""
        layers = [*(block.modulation for block in self._blocks()), self.output.modulation, self.output.linear]
        for parameter in (p for layer in layers for p in layer.parameters()):
            nn.init.zeros_(parameter)

    def blocks(self) -> list[nn.Module]:
        """Return all blocks in the order they run."""
        return list(self.layers)

    def _blocks(self) -> list[DiTBlock]:
        return [cast(DiTBlock, block) for block in self.layers]

    def open_gates(self, gate: float = 0.5) -> None:
        """Give both gates of every block the bias *gate*."""
        for block in self._blocks():
            for part in (2, 5):
                set_gates(block.modulation, part, 6, gate)

    def tokens(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the patches of images (B, C, H, W) as placed tokens (B, N, C'), and their grid's height and width."""
        y = self.stem(x)
        height, width = y.shape[-2:]
        y = y.flatten(2).transpose(1, 2)
        return y + positions(height, width, y.shape[-1], y), (height, width)

    def run(self, x: Tensor, c: Tensor | None) -> list[Tensor]:
        """Return the tokens after each block."""
        outputs = []
        for block in self.layers:
            x = block(x, c)
            outputs.append(x)
        return outputs

    def maps(self, x: Tensor, c: Tensor | None) -> list[Tensor]:
        """Return the maps (B, C, h, w) of images after those blocks that heads see."""
        tokens, (height, width) = self.tokens(x)
        outputs = self.run(tokens, c)
        chosen = (outputs[i] for i in self.config.taken)
        return [y.transpose(1, 2).reshape(len(x), -1, height, width) for y in chosen]

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        """Reconstruct the image; see :meth:`wsipipe.models.backbone.Backbone.forward`."""
        c = self.embedding(t, z)
        tokens, (height, width) = self.tokens(x)
        values = self.output(self.run(tokens, c)[-1], c)  # (B, N, channels · patch²)
        return F.pixel_shuffle(values.transpose(1, 2).reshape(len(x), -1, height, width), self.config.patch)

    def both(self, x: Tensor, z: Tensor | None, timestep: int) -> tuple[Tensor, list[Tensor]]:
        """Return the last map, and all that heads use."""
        maps = self.maps(x, self.embedding(x.new_full((len(x),), timestep, dtype=torch.long), z))
        return maps[-1], maps

    def fold(self, timestep: int = FEATURE_TIMESTEP) -> Folded:
        """Return the backbone with its condition folded into the weights."""
        return FoldedDiT(self, timestep)


class FoldedDiT(Folded):
    """A DiT at one timestep, without a foundation-model feature."""

    def __init__(self, backbone: DiT, timestep: int) -> None:
        super().__init__()
        with torch.no_grad():
            c = backbone.embedding(torch.tensor([timestep], device=backbone.stem.weight.device), None)[0]
            network = copy.deepcopy(backbone)
            network.layers = nn.ModuleList(FoldedDiTBlock(block, c) for block in backbone._blocks())
        del network.embedding, network.output
        self.network = network

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last map, and all that heads use."""
        maps = self.network.maps(x, None)
        return maps[-1], maps

    def decode(self, deepest: Tensor, rest: list[Tensor]) -> list[Tensor]:
        """Return the maps that heads use."""
        return rest
