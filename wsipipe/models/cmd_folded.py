"""CMD as it runs at inference: condition folded into the weights, since at fixed t without z it is constant.

In a block, adaLN's scale and shift go into the expanding layer, the gate into the projecting one, GRN's offset into
its bias. GRN's per-sample scale multiplies the projecting weights (3C x C) instead of the feature map (H x W x 3C).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.backbone import Folded
from wsipipe.models.cmd_block import Block
from wsipipe.models.pointwise import without_pointwise_convolutions


class FoldedBlock(nn.Module):
    """A :class:`~wsipipe.models.cmd_block.Block` for one constant condition; a function of the image alone."""

    def __init__(self, block: Block, condition: Tensor) -> None:
        super().__init__()
        shift, scale, gate = block.modulation(F.silu(condition)).chunk(3)  # (C,) each
        expand, project, grn = block.expand, block.project, block.grn
        self.depthwise = block.depthwise
        self.expand_weight = nn.Parameter(expand.weight * (1 + scale))
        self.expand_bias = nn.Parameter(expand.bias + expand.weight @ shift)
        self.gamma = grn.gamma
        self.project_weight = nn.Parameter((project.weight * gate[:, None]).t().contiguous())  # (3C, C)
        self.project_bias = nn.Parameter((project.bias + project.weight @ grn.beta) * gate)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        y = self.depthwise(x).permute(0, 2, 3, 1)  # (B, H, W, C)
        b, h, w, c = y.shape
        y = F.layer_norm(y, (c,), eps=1e-6)
        y = F.gelu(F.linear(y, self.expand_weight, self.expand_bias)).view(b, h * w, 3 * c)
        scale = 1 + self.gamma * response(y)  # (B, 1, 3C)
        weight = scale.transpose(1, 2) * self.project_weight  # (B, 3C, C)
        y = torch.baddbmm(self.project_bias, y, weight).view(b, h, w, c)
        return x + y.permute(0, 3, 1, 2)


def response(y: Tensor) -> Tensor:
    """Return GRN's response (B, 1, C) of *y* (B, H*W, C), summed in fp32.

    On a CPU squaring and summing is four times as fast as the norm; on a GPU the norm reads bf16 as it is, and squares
    would be two copies of the largest activation in fp32.
    """
    on_gpu = y.device.type == "cuda"
    norm = torch.linalg.vector_norm(y, dim=1, keepdim=True, dtype=torch.float32) if on_gpu else _norm(y)
    return (norm / (norm.mean(-1, keepdim=True) + 1e-6)).to(y.dtype)


def _norm(y: Tensor) -> Tensor:
    return y.float().square().sum(1, keepdim=True).sqrt()


class Unfolded(Protocol):
    """The parts of CMD that are folded, and its condition; see :class:`wsipipe.models.cmd.CMD`."""

    stem: nn.Conv2d
    encoder: nn.ModuleList
    down: nn.ModuleList
    bottleneck: nn.ModuleList
    up: nn.ModuleList
    decoder: nn.ModuleList

    def condition(self, t: Tensor, z: Tensor | None) -> dict[int, Tensor]:
        """Return the condition vector (B, C) of each distinct width C."""
        ...


class FoldedCMD(Folded):
    """CMD at one timestep, without a foundation-model feature.

    Parameters
    ----------
    backbone : Unfolded
    timestep : int
    chosen : sequence of int
        Decoder blocks whose outputs the heads see.
    """

    def __init__(self, backbone: Unfolded, timestep: int, chosen: Sequence[int]) -> None:
        super().__init__()
        self.chosen = tuple(chosen)
        with torch.no_grad():
            t = torch.tensor([timestep], device=backbone.stem.weight.device)
            vectors = backbone.condition(t, None)
            constant = {width: vector[0] for width, vector in vectors.items()}
            self.encoder, self.bottleneck, self.decoder = (
                _fold_all(backbone.encoder, constant),
                _fold(backbone.bottleneck, constant),
                _fold_all(backbone.decoder, constant),
            )
        self.stem, self.down = backbone.stem, backbone.down
        self.up = without_pointwise_convolutions(backbone.up)

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the bottleneck's output and the skip connections, finest first."""
        x, skips = self.stem(x), []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        return self.bottleneck(x), skips

    def decode(self, deepest: Tensor, rest: list[Tensor]) -> list[Tensor]:
        """Return the decoder maps that heads use, of what :meth:`encode` returns."""
        x, outputs = deepest, []
        for up, blocks, skip in zip(self.up, self.decoder, rest[::-1], strict=True):
            x = up(x, skip)
            for block in cast(nn.Sequential, blocks):
                x = block(x)
                outputs.append(x)
        return [outputs[i] for i in self.chosen]


def _fold(blocks: nn.Module, constant: dict[int, Tensor]) -> nn.Sequential:
    each = (cast(Block, block) for block in cast(nn.ModuleList, blocks))
    return nn.Sequential(*(FoldedBlock(block, constant[block.project.out_features]) for block in each))


def _fold_all(levels: nn.ModuleList, constant: dict[int, Tensor]) -> nn.ModuleList:
    return nn.ModuleList(_fold(blocks, constant) for blocks in levels)
