"""1x1 convolutions as matrix products.

oneDNN's 1x1 convolution on a CPU adds up in an order that depends on the number of threads; matrix products give the
same bytes however many threads compute them.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class Pointwise(nn.Module):
    """A 1x1 convolution as a matrix product."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach()[:, :, 0, 0].clone())
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H, W)
        return F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)


def without_pointwise_convolutions(module: Module) -> Module:
    """Return a copy of *module* whose 1x1 convolutions are :class:`Pointwise`."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1):
                setattr(parent, name, Pointwise(child))
    return module
