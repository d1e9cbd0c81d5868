"""Heads that are supervised in more than one place while they are trained: nnU-Net's, and UperNet.

Their forward pass gives the logits that count; ``others`` gives those of the other places, with their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Others = list[tuple[float, Tensor]]
CHANNELS, AUXILIARY = 512, 256
"""Of UperNet, and of the plain head beside it (Xiao et al. 2018, as mmsegmentation has them)."""
BINS = (1, 2, 3, 6)
"""Sides of the pooled maps."""


class Deep(nn.Module):
    """A 1x1 convolution on every map but the coarsest; the finest counts, each coarser one half as much (nnU-Net)."""

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(c, outputs, 1) for c in (widths[1:] or widths))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return cast(Tensor, self.levels[-1](features[-1]))

    def others(self, features: Sequence[Tensor]) -> Others:
        """Return the logits of the coarser maps, with their weights."""
        pairs = list(zip(self.levels, features[-len(self.levels) :]))[-2::-1]
        return [(0.5**k, level(f)) for k, (level, f) in enumerate(pairs, 1)]


def _block(inputs: int, outputs: int, side: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class Uper(nn.Module):
    """UperNet: pooled pyramid on the coarsest map, feature pyramid down to the finest, all joined.

    A plain head on the last map but one is trained beside it, with 0.4 of the weight. What ViT-Adapter's authors put on
    their network. The batch norm of the pooled maps needs more than one picture in a batch.
    """

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        c, n = CHANNELS, len(widths)
        self.pooled = nn.ModuleList(_block(widths[0], c, 1) for _ in BINS)
        self.bottleneck = _block(widths[0] + len(BINS) * c, c, 3)
        self.lateral = nn.ModuleList(_block(width, c, 1) for width in widths[1:])
        self.smooth = nn.ModuleList(_block(c, c, 3) for _ in widths[1:])
        self.join, self.out = _block(n * c, c, 3), nn.Conv2d(c, outputs, 1)
        self.second = nn.Sequential(_block(widths[min(1, n - 1)], AUXILIARY, 3), nn.Conv2d(AUXILIARY, outputs, 1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        first = features[0]
        seen = [_resized(block(F.adaptive_avg_pool2d(first, side)), first) for side, block in zip(BINS, self.pooled)]
        x = self.bottleneck(torch.cat((first, *seen), 1))
        found = [x]
        for lateral, smooth, feature in zip(self.lateral, self.smooth, features[1:]):
            level = lateral(feature)
            x = level + _resized(x, level)
            found.append(smooth(x))
        return cast(Tensor, self.out(self.join(torch.cat([_resized(m, found[-1]) for m in found], 1))))

    def others(self, features: Sequence[Tensor]) -> Others:
        """Return the logits of the plain head, with their weight."""
        return [(0.4, self.second(features[min(1, len(features) - 1)]))]
