"""CMD, the ConvNeXt-UNet of masked diffusion: the whole backbone, smallest part first.

Follows the CMD paper (sections 3.2-3.3, Tables B1 and B2). Shape letters: B batch, C channels, H W pixels, D width of
the condition. Feature maps are kept channels-last in memory; inside a block they are viewed as (B, H, W, C).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.backbone import FEATURE_TIMESTEP, Backbone, set_gates
from wsipipe.models.cmd_block import Block, Up
from wsipipe.models.cmd_folded import FoldedCMD
from wsipipe.models.condition import Condition
from wsipipe.models.unet_config import UNetConfig

ENCODER_BLOCKS = (1, 2, 3, 2, 2)
BOTTLENECK_BLOCKS = 6
DECODER_BLOCKS = (2, 2, 3, 2, 1)
FEATURE_BLOCKS = (1, 3, 5, 6, 8, 9)
"""Decoder blocks, numbered from coarse to fine, whose outputs the heads see (appendix B.3)."""
STEP = 4
"""Of the widths: pixel-shuffling takes four channels for one."""


@dataclass(frozen=True)
class CMDConfig(UNetConfig):
    """Size of a backbone; ``condition`` 0 is the paper's "CMD w/o PFM" (Table 3)."""

    STEP: ClassVar[int] = STEP

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of the maps of the decoder's blocks 1, 3, 5, 6, 8, 9."""
        per_block = [c for c, n in zip(self.widths[-2::-1], DECODER_BLOCKS) for _ in range(n)]
        return tuple(per_block[i] for i in FEATURE_BLOCKS)


def _size(w: int, condition: int = 0) -> CMDConfig:
    return CMDConfig((w, w, w, 2 * w, 2 * w, 4 * w), condition)


def cmd_t(condition: int = 0) -> CMDConfig:
    """Return the smallest size, for laptops (2.1 M parameters unconditioned)."""
    return _size(32, condition)


def cmd_s(condition: int = 0) -> CMDConfig:
    """Return the small size (8.2 M)."""
    return _size(64, condition)


def cmd_b(condition: int = 1024) -> CMDConfig:
    """Return the paper's CMD-B (130.8 M with D = 1024)."""
    return _size(256, condition)


def cmd_l(condition: int = 1024) -> CMDConfig:
    """Return the paper's CMD-L (516.7 M with D = 1024)."""
    return _size(512, condition)


SIZES = {"T": cmd_t, "S": cmd_s, "B": cmd_b, "L": cmd_l}


class Down(nn.Module):
    """Halve the resolution: 3x3 convolution, then pixel-unshuffle."""

    def __init__(self, width: int, coarser: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, coarser // 4, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H/2, W/2)
        return F.pixel_unshuffle(self.conv(x), 2).contiguous(memory_format=torch.channels_last)


class Output(nn.Module):
    """Last layers: convolution, modulated LayerNorm, zero-started convolution to RGB."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(width, 2 * width)  # after SiLU: shift, scale
        self.rgb = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:  # (B, C, H, W), (B, C) -> (B, 3, H, W)
        shift, scale = self.modulation(F.silu(c))[:, None, None, :].chunk(2, dim=-1)
        y = self.conv(x).permute(0, 2, 3, 1)  # (B, H, W, C)
        y = F.layer_norm(y, y.shape[-1:], eps=1e-6) * (1 + scale) + shift
        return cast(Tensor, self.rgb(y.permute(0, 3, 1, 2)))


class CMD(Backbone):
    """The backbone: reconstructs the masked image, and serves dense features from its decoder.

    Parameters
    ----------
    config : CMDConfig

    Notes
    -----
    The network starts as the identity in every block, with a zero output (adaLN-Zero). Baselines that train from
    random weights call :meth:`open_gates` first.
    """

    config: CMDConfig
    output: Output

    def __init__(self, config: CMDConfig) -> None:
        super().__init__()
        self.config = config
        w = config.widths
        self.stem = nn.Conv2d(config.channels, w[0], 3, padding=1)
        self.conditions = nn.ModuleDict({str(c): Condition(c, config.condition) for c in dict.fromkeys(w)})
        self.encoder = nn.ModuleList(nn.ModuleList(Block(c) for _ in range(n)) for c, n in zip(w, ENCODER_BLOCKS))
        self.down = nn.ModuleList(Down(a, b) for a, b in zip(w, w[1:]))
        self.bottleneck = nn.ModuleList(Block(w[-1]) for _ in range(BOTTLENECK_BLOCKS))
        self.up = nn.ModuleList(Up(a, b) for a, b in zip(w[:0:-1], w[-2::-1]))
        self.decoder = nn.ModuleList(
            nn.ModuleList(Block(c) for _ in range(n)) for c, n in zip(w[-2::-1], DECODER_BLOCKS)
        )
        self.output = Output(w[0], config.channels)
        self.zero_start()

    def zero_start(self) -> None:
        """Close every block's gate and set the last layers to zero (adaLN-Zero)."""
        layers = [*(block.modulation for block in self._blocks()), self.output.modulation, self.output.rgb]
        for parameter in (p for layer in layers for p in layer.parameters()):
            nn.init.zeros_(parameter)

    def blocks(self) -> list[nn.Module]:
        """Return all 26 blocks in the order they run."""
        return list(self._blocks())

    def _blocks(self) -> list[Block]:
        groups = [*self.encoder, self.bottleneck, *self.decoder]
        return [cast(Block, block) for group in groups for block in cast(nn.ModuleList, group)]

    def open_gates(self, gate: float = 0.5) -> None:
        """Give every block's gate the bias *gate*, for training from random weights."""
        for block in self._blocks():
            set_gates(block.modulation, 2, 3, gate)

    def condition(self, t: Tensor, z: Tensor | None) -> dict[int, Tensor]:
        """Return the condition vector (B, C) of each distinct width C."""
        return {int(width): embed(t, z) for width, embed in self.conditions.items()}

    def encode(self, x: Tensor, c: dict[int, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the bottleneck's output (B, 4w, H/32, W/32) and the skip connections, finest first."""
        x, skips = self.stem(x), []
        for blocks, down in zip(self.encoder, self.down):
            x = _run(blocks, x, c)
            skips.append(x)
            x = down(x)
        return _run(self.bottleneck, x, c), skips

    def decode(self, x: Tensor, skips: list[Tensor], c: dict[int, Tensor]) -> list[Tensor]:
        """Return the outputs of the ten decoder blocks, coarse to fine."""
        outputs = []
        for up, blocks, skip in zip(self.up, self.decoder, skips[::-1]):
            x = up(x, skip)
            for block in cast(nn.ModuleList, blocks):
                x = block(x, c[x.shape[1]])
                outputs.append(x)
        return outputs

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        """Reconstruct the image.

        Parameters
        ----------
        x : Tensor (B, 3, H, W)
            Masked image in [-1, 1], masked pixels 0; H and W multiples of 32 (256 as trained).
        t : Tensor (B,)
            Timesteps, 1 to 1000, unscaled.
        z : Tensor (B, D), optional
            Frozen foundation-model feature.

        Returns
        -------
        Tensor (B, 3, H, W)
        """
        c = self.condition(t, z)
        return cast(Tensor, self.output(self.decode(*self.encode(x, c), c)[-1], c[self.config.widths[0]]))

    def both(self, x: Tensor, z: Tensor | None, timestep: int) -> tuple[Tensor, list[Tensor]]:
        """Return the bottleneck's output and the decoder maps that heads use (blocks 1, 3, 5, 6, 8, 9)."""
        c = self.condition(x.new_full((x.shape[0],), timestep, dtype=torch.long), z)
        deepest, skips = self.encode(x, c)
        outputs = self.decode(deepest, skips, c)
        return deepest, [outputs[i] for i in FEATURE_BLOCKS]

    def fold(self, timestep: int = FEATURE_TIMESTEP) -> FoldedCMD:
        """Return the backbone with its condition folded into the weights."""
        return FoldedCMD(self, timestep, FEATURE_BLOCKS)


def _run(blocks: nn.Module, x: Tensor, c: dict[int, Tensor]) -> Tensor:
    for block in cast(nn.ModuleList, blocks):
        x = block(x, c[x.shape[1]])
    return x
