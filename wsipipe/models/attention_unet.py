"""Attention U-Net: residual blocks of 3x3 convolutions, and additive attention gates on the skip connections.

The CMD paper compares such a network (Table B2, 132.65 M parameters) and does not draw it. Here: gates as in Oktay et
al. (2018); blocks of group norm, SiLU and 3x3 convolution; timestep and foundation-model feature by adaptive group norm
with a gate that starts closed, as adaLN-Zero in CMD. Widths double every second level. Shape letters: B batch, C
channels, H W pixels, D width of the condition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.backbone import FEATURE_TIMESTEP, Backbone, Folded, set_gates
from wsipipe.models.condition import Condition
from wsipipe.models.pointwise import without_pointwise_convolutions
from wsipipe.models.unet_config import UNetConfig

GROUP = 8
"""Channels that are normalised together."""
ENCODER_BLOCKS = (1, 1, 1, 2, 2)
BOTTLENECK_BLOCKS = 2
DECODER_BLOCKS = (2, 2, 1, 1, 1)


@dataclass(frozen=True)
class AttentionUNetConfig(UNetConfig):
    """Size of a backbone; the last width is that of the condition's embedding, too."""

    STEP: ClassVar[int] = GROUP

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of the decoder's five levels."""
        return self.widths[-2::-1]


def attention_unet_t(condition: int = 0) -> AttentionUNetConfig:
    """Return the smallest size, within 5 % of CMD-T's parameters."""
    return AttentionUNetConfig((24, 24, 48, 48, 96, 104), condition)


def attention_unet_s(condition: int = 0) -> AttentionUNetConfig:
    """Return the small size, within 5 % of CMD-S's parameters."""
    return AttentionUNetConfig((48, 48, 96, 96, 192, 192), condition)


def attention_unet_b(condition: int = 1024) -> AttentionUNetConfig:
    """Return the paper's size (132.5 M with D = 1024)."""
    return AttentionUNetConfig((192, 192, 384, 384, 736, 800), condition)


def attention_unet_l(condition: int = 1024) -> AttentionUNetConfig:
    """Return a size within 1 % of CMD-L's parameters."""
    return AttentionUNetConfig((384, 384, 768, 768, 1472, 1536), condition)


SIZES = {"T": attention_unet_t, "S": attention_unet_s, "B": attention_unet_b, "L": attention_unet_l}


def group_norm(width: int) -> nn.GroupNorm:
    """Return the norm of *width* channels, eight at a time."""
    return nn.GroupNorm(width // GROUP, width, eps=1e-6)


class ResBlock(nn.Module):
    """Two 3x3 convolutions with adaptive group norm between them, gated and added to the input."""

    def __init__(self, inputs: int, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = group_norm(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 3 * width)  # after SiLU: shift, scale, gate
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, width, 1) if inputs != width else nn.Identity()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:  # (B, C, H, W), (B, E) -> (B, C', H, W)
        shift, scale, gate = self.modulation(F.silu(c))[:, :, None, None].chunk(3, dim=1)  # (B, C', 1, 1) each
        y = self.conv1(F.silu(self.norm(x)))
        y = F.group_norm(y, y.shape[1] // GROUP, eps=1e-6) * (1 + scale) + shift
        return cast(Tensor, self.shortcut(x) + self.conv2(F.silu(y)) * gate)


class FoldedResBlock(nn.Module):
    """A :class:`ResBlock` for one constant condition."""

    def __init__(self, block: ResBlock, c: Tensor) -> None:
        super().__init__()
        shift, scale, gate = block.modulation(F.silu(c)).chunk(3)  # (C',) each
        self.norm, self.conv1, self.shortcut = block.norm, block.conv1, block.shortcut
        self.scale, self.shift = nn.Parameter(1 + scale), nn.Parameter(shift.clone())
        self.weight = nn.Parameter(block.conv2.weight * gate[:, None, None, None])
        self.bias = nn.Parameter(cast(Tensor, block.conv2.bias) * gate)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        y = self.conv1(F.silu(self.norm(x)))
        y = F.group_norm(y, y.shape[1] // GROUP, self.scale, self.shift, eps=1e-6)
        return cast(Tensor, self.shortcut(x) + F.conv2d(F.silu(y), self.weight, self.bias, padding=1))


class Gate(nn.Module):
    """Additive attention: how much of a skip connection passes at each place, given the coarser map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width // 2
        self.skip = nn.Conv2d(width, hidden, 1)
        self.coarse = nn.Conv2d(width, hidden, 1, bias=False)
        self.weight = nn.Conv2d(hidden, 1, 1)

    def forward(self, skip: Tensor, up: Tensor) -> Tensor:  # (B, C, H, W) each -> (B, C, H, W)
        return cast(Tensor, skip * self.weight(F.relu(self.skip(skip) + self.coarse(up))).sigmoid())


class Level(nn.Module):
    """A level of the decoder: upsample, gate the skip connection, concatenate, blocks."""

    def __init__(self, coarser: int, width: int, blocks: int, embedding: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(coarser, width, 3, padding=1)
        self.gate = Gate(width)
        self.blocks = nn.ModuleList(ResBlock(width * (1 + (k == 0)), width, embedding) for k in range(blocks))

    def forward(self, x: Tensor, skip: Tensor, c: Tensor) -> Tensor:  # (B, C, H, W), (B, C', 2H, 2W)
        up = self.up(F.interpolate(x, scale_factor=2, mode="nearest"))
        return _run(self.blocks, torch.cat((up, self.gate(skip, up)), dim=1), c)


class Output(nn.Module):
    """Last layers: norm, SiLU, zero-started convolution."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.conv = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(F.silu(self.norm(x))))


class AttentionUNet(Backbone):
    """The backbone; its features are the outputs of the decoder's five levels, coarse to fine."""

    config: AttentionUNetConfig
    output: Output

    def __init__(self, config: AttentionUNetConfig) -> None:
        super().__init__()
        self.config = config
        w, e = config.widths, config.widths[-1]
        self.stem = nn.Conv2d(config.channels, w[0], 3, padding=1)
        self.embedding = Condition(e, config.condition)
        self.encoder = nn.ModuleList(
            nn.ModuleList(ResBlock(c, c, e) for _ in range(n)) for c, n in zip(w, ENCODER_BLOCKS)
        )
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(w, w[1:]))
        self.bottleneck = nn.ModuleList(ResBlock(w[-1], w[-1], e) for _ in range(BOTTLENECK_BLOCKS))
        self.decoder = nn.ModuleList(Level(b, a, n, e) for b, a, n in zip(w[:0:-1], w[-2::-1], DECODER_BLOCKS))
        self.output = Output(w[0], config.channels)
        self.zero_start()

    def zero_start(self) -> None:
        """Close every block's gate and set the last layer to zero."""
        layers = [*(block.modulation for block in self._blocks()), self.output.conv]
        for parameter in (p for layer in layers for p in layer.parameters()):
            nn.init.zeros_(parameter)

    def blocks(self) -> list[nn.Module]:
        """Return all blocks in the order they run."""
        return list(self._blocks())

    def _blocks(self) -> list[ResBlock]:
        return [module for module in self.modules() if isinstance(module, ResBlock)]

    def open_gates(self, gate: float = 0.5) -> None:
        """Give every block's gate the bias *gate*."""
        for block in self._blocks():
            set_gates(block.modulation, 2, 3, gate)

    def encode(self, x: Tensor, c: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the bottleneck's output (B, C, H/32, W/32) and the skip connections, finest first."""
        x, skips = self.stem(x), []
        for blocks, down in zip(self.encoder, self.down):
            x = _run(blocks, x, c)
            skips.append(x)
            x = down(x)
        return _run(self.bottleneck, x, c), skips

    def decode(self, x: Tensor, skips: list[Tensor], c: Tensor) -> list[Tensor]:
        """Return the outputs of the decoder's levels, coarse to fine."""
        outputs = []
        for level, skip in zip(self.decoder, skips[::-1]):
            x = level(x, skip, c)
            outputs.append(x)
        return outputs

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        """Reconstruct the image; see :meth:`wsipipe.models.backbone.Backbone.forward`."""
        c = self.embedding(t, z)
        return cast(Tensor, self.output(self.decode(*self.encode(x, c), c)[-1]))

    def both(self, x: Tensor, z: Tensor | None, timestep: int) -> tuple[Tensor, list[Tensor]]:
        """Return the bottleneck's output and the outputs of the decoder's levels."""
        c = self.embedding(x.new_full((len(x),), timestep, dtype=torch.long), z)
        deepest, skips = self.encode(x, c)
        return deepest, self.decode(deepest, skips, c)

    def fold(self, timestep: int = FEATURE_TIMESTEP) -> Folded:
        """Return the backbone with its condition folded into the weights."""
        return FoldedAttentionUNet(self, timestep)


class FoldedAttentionUNet(Folded):
    """An Attention U-Net at one timestep, without a foundation-model feature."""

    def __init__(self, backbone: AttentionUNet, timestep: int) -> None:
        super().__init__()
        with torch.no_grad():
            device = backbone.stem.weight.device
            c = backbone.embedding(torch.tensor([timestep], device=device), None)[0]
            network = without_pointwise_convolutions(backbone)
            for parent in list(network.modules()):
                for name, child in parent.named_children():
                    if isinstance(child, ResBlock):
                        setattr(parent, name, FoldedResBlock(child, c))
        del network.embedding, network.output
        self.network = network

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the bottleneck's output and the skip connections, finest first."""
        return self.network.encode(x, cast(Tensor, None))  # folded blocks take no condition

    def decode(self, deepest: Tensor, rest: list[Tensor]) -> list[Tensor]:
        """Return the outputs of the decoder's levels."""
        return self.network.decode(deepest, rest, cast(Tensor, None))


def _run(blocks: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    for block in cast(nn.ModuleList, blocks):
        x = block(x, c)
    return x
