"""CMD, the ConvNeXt-UNet of masked diffusion: the whole backbone, smallest part first.

Follows the CMD paper (sections 3.2-3.3, Tables B1 and B2). Shape letters: B batch, C channels, H W pixels, D width of
the condition. Feature maps are kept channels-last in memory; inside a block they are viewed as (B, H, W, C).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE = 256
"""Side of the square the network sees, in pixels (global response normalisation depends on it)."""
ENCODER_BLOCKS = (1, 2, 3, 2, 2)
BOTTLENECK_BLOCKS = 6
DECODER_BLOCKS = (2, 2, 3, 2, 1)
FEATURE_BLOCKS = (1, 3, 5, 6, 8, 9)
"""Decoder blocks, numbered from coarse to fine, whose outputs the heads see (appendix B.3)."""
FEATURE_TIMESTEP = 50
"""Timestep at which features are taken (section 4.1.3)."""


@dataclass(frozen=True)
class CMDConfig:
    """Size of a backbone.

    Attributes
    ----------
    widths : six ints
        Channels at 256², 128², 64², 32², 16² and 8².
    condition : int
        Width D of the foundation-model feature; 0 for an unconditioned backbone ("CMD w/o PFM", Table 3).
    """

    widths: tuple[int, int, int, int, int, int]
    condition: int = 0


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


class GRN(nn.Module):
    """Global response normalisation (ConvNeXt V2): channels compete by their norm over the whole tile."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C)
        return torch.addcmul(self.beta, x, 1 + self.gamma * response(x))


def response(x: Tensor) -> Tensor:
    """Return each channel's norm over the tile, divided by the mean over channels: (B, H, W, C) -> (B, 1, 1, C)."""
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.float32)
    return cast(Tensor, norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)).to(x.dtype)


class Block(nn.Module):
    """ConvNeXt block with adaLN-Zero conditioning (Figure 1C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.expand = nn.Linear(width, 3 * width)
        self.grn = GRN(3 * width)
        self.project = nn.Linear(3 * width, width)
        self.modulation = nn.Linear(width, 3 * width)  # after SiLU: shift, scale, gate

    def forward(self, x: Tensor, c: Tensor) -> Tensor:  # x (B, C, H, W), c (B, C)
        shift, scale, gate = self.modulation(F.silu(c))[:, None, None, :].chunk(3, dim=-1)  # (B, 1, 1, C) each
        y = self.depthwise(x).permute(0, 2, 3, 1)  # (B, H, W, C)
        y = F.layer_norm(y, y.shape[-1:], eps=1e-6) * (1 + scale) + shift
        y = self.project(self.grn(F.gelu(self.expand(y)))) * gate
        return cast(Tensor, x + y.permute(0, 3, 1, 2))


class Down(nn.Module):
    """Halve the resolution: 3x3 convolution, then pixel-unshuffle."""

    def __init__(self, width: int, coarser: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, coarser // 4, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H/2, W/2)
        return F.pixel_unshuffle(self.conv(x), 2).contiguous(memory_format=torch.channels_last)


class Up(nn.Module):
    """Double the resolution (3x3 convolution, pixel-shuffle) and merge the encoder's skip connection."""

    def __init__(self, width: int, finer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, finer * 4, 3, padding=1, bias=False)
        self.merge = nn.Conv2d(2 * finer, finer, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # (B, C, H, W), (B, C', 2H, 2W) -> (B, C', 2H, 2W)
        up = F.pixel_shuffle(self.conv(x), 2).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.merge(torch.cat((up, skip), dim=1)))


def sinusoids(t: Tensor, width: int = 256, max_period: float = 1e4) -> Tensor:
    """Return the (B, *width*) sinusoidal embedding of timesteps *t* (B,), cosines first."""
    frequencies = torch.exp(-math.log(max_period) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = t.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=1)


class Condition(nn.Module):
    """Timestep embedding plus projected foundation-model feature, for the blocks of one width."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.timestep = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.feature = (
            nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width)) if condition else None
        )

    def forward(self, t: Tensor, z: Tensor | None) -> Tensor:  # (B,), (B, D) -> (B, C)
        c = cast(Tensor, self.timestep(sinusoids(t).to(self.timestep[0].weight.dtype)))  # type: ignore[arg-type]
        return c if z is None or self.feature is None else c + self.feature(z)


class Output(nn.Module):
    """Last layers: convolution, modulated LayerNorm, zero-started convolution to RGB."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(width, 2 * width)  # after SiLU: shift, scale
        self.rgb = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:  # (B, C, H, W), (B, C) -> (B, 3, H, W)
        shift, scale = self.modulation(F.silu(c))[:, None, None, :].chunk(2, dim=-1)
        y = self.conv(x).permute(0, 2, 3, 1)  # (B, H, W, C)
        y = F.layer_norm(y, y.shape[-1:], eps=1e-6) * (1 + scale) + shift
        return cast(Tensor, self.rgb(y.permute(0, 3, 1, 2)))


class CMD(nn.Module):
    """The backbone: reconstructs the masked image, and serves dense features from its decoder.

    Parameters
    ----------
    config : CMDConfig

    Notes
    -----
    The network starts as the identity in every block, with a zero output (adaLN-Zero). Baselines that train from
    random weights call :meth:`open_gates` first.
    """

    def __init__(self, config: CMDConfig) -> None:
        super().__init__()
        self.config = config
        w = config.widths
        self.stem = nn.Conv2d(3, w[0], 3, padding=1)
        self.conditions = nn.ModuleDict({str(c): Condition(c, config.condition) for c in dict.fromkeys(w)})
        self.encoder = nn.ModuleList(nn.ModuleList(Block(c) for _ in range(n)) for c, n in zip(w, ENCODER_BLOCKS))
        self.down = nn.ModuleList(Down(a, b) for a, b in zip(w, w[1:]))
        self.bottleneck = nn.ModuleList(Block(w[-1]) for _ in range(BOTTLENECK_BLOCKS))
        self.up = nn.ModuleList(Up(a, b) for a, b in zip(w[:0:-1], w[-2::-1]))
        self.decoder = nn.ModuleList(
            nn.ModuleList(Block(c) for _ in range(n)) for c, n in zip(w[-2::-1], DECODER_BLOCKS)
        )
        self.output = Output(w[0])
        self._zero_start()

    def _zero_start(self) -> None:
        layers = [*(block.modulation for block in self.blocks()), self.output.modulation, self.output.rgb]
        for parameter in (p for layer in layers for p in layer.parameters()):
            nn.init.zeros_(parameter)

    def blocks(self) -> list[Block]:
        """Return all 26 blocks in the order they run."""
        groups = [*self.encoder, self.bottleneck, *self.decoder]
        return [cast(Block, block) for group in groups for block in cast(nn.ModuleList, group)]

    def open_gates(self, gate: float = 0.5) -> None:
        """Give every block's gate the bias *gate*, for training from random weights."""
        with torch.no_grad():
            for block in self.blocks():
                block.modulation.bias.chunk(3)[2].fill_(gate)

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of each map that :meth:`features` returns."""
        w = self.config.widths[-2::-1]
        per_block = [c for c, n in zip(w, DECODER_BLOCKS) for _ in range(n)]
        return tuple(per_block[i] for i in FEATURE_BLOCKS)

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

    def features(self, x: Tensor, z: Tensor | None = None, timestep: int = FEATURE_TIMESTEP) -> list[Tensor]:
        """Return the decoder maps that heads use (blocks 1, 3, 5, 6, 8, 9), coarse to fine.

        Parameters
        ----------
        x : Tensor (B, 3, H, W)
            Unmasked image in [-1, 1].
        """
        c = self.condition(x.new_full((x.shape[0],), timestep, dtype=torch.long), z)
        outputs = self.decode(*self.encode(x, c), c)
        return [outputs[i] for i in FEATURE_BLOCKS]


def _run(blocks: nn.Module, x: Tensor, c: dict[int, Tensor]) -> Tensor:
    for block in cast(nn.ModuleList, blocks):
        x = block(x, c[x.shape[1]])
    return x
