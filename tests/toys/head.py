"""A further head: one 1 × 1 convolution on the finest map of the backbone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class ToyHead(nn.Module):
    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(widths[-1], outputs, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.convolution(features[-1])
