"""What a backbone is told besides the picture: the timestep, and the feature of a frozen foundation model."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn


def sinusoids(t: Tensor, width: int = 256, max_period: float = 1e4) -> Tensor:
    """Return the (B, *width*) sinusoidal embedding of timesteps *t* (B,), cosines first."""
    frequencies = torch.exp(-math.log(max_period) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = t.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=1)


class Condition(nn.Module):
    """Timestep embedding plus projected foundation-model feature, as a vector."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.timestep = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.feature = (
            nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width)) if condition else None
        )

    def forward(self, t: Tensor, z: Tensor | None) -> Tensor:  # (B,), (B, D) -> (B, C)
        c = cast(Tensor, self.timestep(sinusoids(t).to(self.timestep[0].weight.dtype)))  # type: ignore[arg-type]
        return c if z is None or self.feature is None else c + self.feature(z)
