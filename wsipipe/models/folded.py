"""The backbone as it runs at inference: condition folded into the weights, since at fixed t without z it is constant.

In a block, adaLN's scale and shift go into the expanding layer, the gate into the projecting one, GRN's offset into
its bias. GRN's per-sample scale multiplies the projecting weights (3C x C) instead of the feature map (H x W x 3C).
1x1 convolutions become matrix products, because oneDNN's 1x1 convolution on a CPU adds up in an order that depends on
the number of threads; so maps are the same bytes however many threads compute them.
"""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.errors import ModelError
from wsipipe.models.checkpoint import Segmenter
from wsipipe.models.cmd import CMD, FEATURE_BLOCKS, FEATURE_TIMESTEP, Block
from wsipipe.models.heads import Head

Module = TypeVar("Module", bound=nn.Module)


class FoldedBlock(nn.Module):
    """A :class:`~wsipipe.models.cmd.Block` for one constant condition; a function of the image alone."""

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


class FoldedSegmenter(nn.Module):
    """A segmenter whose backbone is folded: images in [-1, 1] in, maps in [0, 1] out.

    Raises
    ------
    ModelError
        When the backbone is conditioned: without its condition it would give what it was never trained to.
    """

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        backbone: CMD = network.backbone
        if width := backbone.config.condition:
            raise ModelError(
                f"the backbone is conditioned on an encoder's features, {width} wide, and tells nothing without them; "
                "expected one pretrained without --encoder, or fitted with --unfreeze, which leaves the encoder out"
            )
        with torch.no_grad():
            timestep = torch.tensor([FEATURE_TIMESTEP], device=backbone.stem.weight.device)
            vectors = backbone.condition(timestep, None)
            constant = {width: vector[0] for width, vector in vectors.items()}
            self.encoder, self.bottleneck, self.decoder = (
                _fold_all(backbone.encoder, constant),
                _fold(backbone.bottleneck, constant),
                _fold_all(backbone.decoder, constant),
            )
        self.stem, self.down = backbone.stem, backbone.down
        self.up = without_pointwise_convolutions(backbone.up)
        self.head: Head = without_pointwise_convolutions(network.head)
        self.requires_grad_(False).eval()

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the decoder maps that heads use; see :meth:`wsipipe.models.cmd.CMD.features`."""
        return self.decode(*self.encode(x))

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the bottleneck's output and the skip connections, finest first."""
        x, skips = self.stem(x), []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        return self.bottleneck(x), skips

    def decode(self, x: Tensor, skips: list[Tensor]) -> list[Tensor]:
        """Return the decoder maps that heads use, of what :meth:`encode` returns."""
        outputs = []
        for up, blocks, skip in zip(self.up, self.decoder, skips[::-1], strict=True):
            x = up(x, skip)
            for block in cast(nn.Sequential, blocks):
                x = block(x)
                outputs.append(x)
        return [outputs[i] for i in FEATURE_BLOCKS]

    def forward(self, x: Tensor) -> Tensor:
        """Return the head's maps (B, K, H, W) in [0, 1], fp32, of images (B, 3, H, W) in [-1, 1]."""
        return self.head.maps(self.head(self.features(x)))


class Conditioned(nn.Module):
    """A backbone whose condition differs from tile to tile, and so is not folded."""

    def __init__(self, backbone: CMD) -> None:
        super().__init__()
        self.backbone = without_pointwise_convolutions(backbone)
        self.requires_grad_(False).eval()

    def both(self, x: Tensor, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the bottleneck's output, and the decoder maps that heads use, under the condition *z* (B, D)."""
        t = x.new_full((len(x),), FEATURE_TIMESTEP, dtype=torch.long)
        c = self.backbone.condition(t, z.to(x.dtype))
        deepest, skips = self.backbone.encode(x, c)
        outputs = self.backbone.decode(deepest, skips, c)
        return deepest, [outputs[i] for i in FEATURE_BLOCKS]


def _fold(blocks: nn.Module, constant: dict[int, Tensor]) -> nn.Sequential:
    each = (cast(Block, block) for block in cast(nn.ModuleList, blocks))
    return nn.Sequential(*(FoldedBlock(block, constant[block.project.out_features]) for block in each))


def _fold_all(levels: nn.ModuleList, constant: dict[int, Tensor]) -> nn.ModuleList:
    return nn.ModuleList(_fold(blocks, constant) for blocks in levels)
