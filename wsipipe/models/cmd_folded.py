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

from wsipipe.models import fused
from wsipipe.models.backbone import Folded
from wsipipe.models.cmd_block import Block, Up


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
        if fused.serves(y):
            return self._fused(x, y)
        y = F.layer_norm(y, (c,), eps=1e-6)
        y = F.gelu(F.linear(y, self.expand_weight, self.expand_bias)).view(b, h * w, 3 * c)
        scale = 1 + self.gamma * response(y)  # (B, 1, 3C)
        weight = scale.transpose(1, 2) * self.project_weight  # (B, 3C, C)
        y = torch.baddbmm(self.project_bias, y, weight).view(b, h, w, c)
        return x + y.permute(0, 3, 1, 2)

    def _fused(self, x: Tensor, y: Tensor) -> Tensor:  # y (B, H, W, C) is overwritten
        b, h, w, c = y.shape
        y = torch.mm(fused.layer_norm(y).view(-1, c), self.expand_weight.t()).view(b, h * w, 3 * c)
        norm = fused.gelu(y, self.expand_bias)
        weight = (1 + self.gamma * response_of(norm).to(y.dtype)).transpose(1, 2) * self.project_weight
        y = torch.bmm(y, weight).view(b, h, w, c)
        return fused.add(y, x.permute(0, 2, 3, 1), self.project_bias).permute(0, 3, 1, 2)


def response(y: Tensor) -> Tensor:
    """Return GRN's response (B, 1, C) of *y* (B, H*W, C), summed in fp32.

    On a CPU squaring and summing is four times as fast as the norm; on a GPU the norm reads bf16 as it is, and squares
    would be two copies of the largest activation in fp32.
    """
    on_gpu = y.device.type == "cuda"
    norm = torch.linalg.vector_norm(y, dim=1, keepdim=True, dtype=torch.float32) if on_gpu else _norm(y)
    return response_of(norm).to(y.dtype)


def response_of(norm: Tensor) -> Tensor:
    """Return GRN's response (B, 1, C) of the channels' norms (B, 1, C)."""
    return norm / (norm.mean(-1, keepdim=True) + 1e-6)


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


class FoldedUp(nn.Module):
    """An :class:`~wsipipe.models.cmd_block.Up` whose merging layer is folded into its convolution.

    Between the two is pixel-shuffling alone, so that what merges the upper half of the channels can come before it. The
    convolution's channels are ordered by pixel of the 2 x 2, then by channel: shuffling moves whole runs of channels.
    """

    def __init__(self, up: Up) -> None:
        super().__init__()
        merge, finer = up.merge.weight[:, :, 0, 0], up.merge.out_channels
        conv = up.conv.weight.reshape(finer, 2, 2, -1, 3, 3)
        weight = torch.einsum("oc,cijxyz->ijoxyz", merge[:, :finer], conv).flatten(0, 2)
        self.weight = nn.Parameter(weight)  # (4C', C, 3, 3)
        self.merge_weight = nn.Parameter(merge[:, finer:].clone())
        self.merge_bias = up.merge.bias

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # (B, C, H, W), (B, C', 2H, 2W) -> (B, C', 2H, 2W)
        b, c, h, w = skip.shape
        up = F.conv2d(x, self.weight, padding=1).permute(0, 2, 3, 1).reshape(b, h // 2, w // 2, 2, 2, c)
        y = F.linear(skip.permute(0, 2, 3, 1), self.merge_weight, self.merge_bias).view(b, h // 2, 2, w // 2, 2, c)
        return (y + up.transpose(2, 3)).view(b, h, w, c).permute(0, 3, 1, 2)


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
            self.up = nn.ModuleList(FoldedUp(cast(Up, up)) for up in backbone.up)
        self.stem, self.down = backbone.stem, backbone.down

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
