"""What CMD is made of: the ConvNeXt V2 block with its condition by adaLN-Zero, and the way up to the finer level."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class Up(nn.Module):
    """Double the resolution (3x3 convolution, pixel-shuffle) and merge the encoder's skip connection."""

    def __init__(self, width: int, finer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, finer * 4, 3, padding=1, bias=False)
        self.merge = nn.Conv2d(2 * finer, finer, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # (B, C, H, W), (B, C', 2H, 2W) -> (B, C', 2H, 2W)
        up = F.pixel_shuffle(self.conv(x), 2).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.merge(torch.cat((up, skip), dim=1)))
