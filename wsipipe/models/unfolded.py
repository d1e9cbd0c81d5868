"""A second spelling of the folded network, as convolutions throughout: what compilers of convolutions like.

With matrix products OpenVINO is as fast as torch; written so, a quarter faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.cmd_folded import FoldedBlock
from wsipipe.models.pointwise import Pointwise


def block(self: FoldedBlock, x: Tensor) -> Tensor:
    """Compute a folded block without leaving (B, C, H, W)."""
    y = self.depthwise(x)
    y = y - y.mean(1, keepdim=True)
    y = y * torch.rsqrt((y * y).mean(1, keepdim=True) + 1e-6)
    y = F.gelu(F.conv2d(y, self.expand_weight[:, :, None, None], self.expand_bias))
    norm = (y * y).sum((2, 3), keepdim=True).sqrt()
    y = y * (1 + self.gamma[None, :, None, None] * (norm / (norm.mean(1, keepdim=True) + 1e-6)))
    return x + F.conv2d(y, self.project_weight.t()[:, :, None, None], self.project_bias)


def pointwise(self: Pointwise, x: Tensor) -> Tensor:
    """Compute a 1x1 convolution as one."""
    return F.conv2d(x, self.weight[:, :, None, None], self.bias)


SPELLINGS = {FoldedBlock: block, Pointwise: pointwise}


@contextmanager
def written_as_convolutions(network: nn.Module) -> Iterator[None]:
    """Let *network*, and no other, compute its blocks as convolutions inside the block."""
    changed = [module for module in network.modules() if type(module) in SPELLINGS]
    for module in changed:
        module.forward = SPELLINGS[type(module)].__get__(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward
