"""A plain vision transformer that loads weights saved under timm's names, so that timm need not be installed.

The layout follows from the names and shapes of the tensors: depth, width, patch size, class and register tokens,
layer scale, and GELU or packed SwiGLU. That covers UNI (ViT-L/16) and H0-mini (ViT-B/14 with registers). Heads are 64
wide, as in every ViT of either family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 64


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, C)
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, c // HEAD, HEAD).permute(2, 0, 3, 1, 4)  # (B, heads, N, 64) each
        y = F.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.proj(y.transpose(1, 2).reshape(b, n, c)))


class MLP(nn.Module):
    """Two layers with GELU between them, or with SiLU(a) · b when the first gives both halves (packed SwiGLU)."""

    def __init__(self, width: int, hidden: int, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden // 2 if packed else hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc1(x)
        if self.packed:
            a, b = y.chunk(2, dim=-1)
            return cast(Tensor, self.fc2(F.silu(a) * b))
        return cast(Tensor, self.fc2(F.gelu(y)))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Layer(nn.Module):
    """Attention and MLP, each normalised before and added to its input."""

    def __init__(self, width: int, hidden: int, packed: bool, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width), MLP(width, hidden, packed)
        self.ls1 = LayerScale(width) if scaled else nn.Identity()
        self.ls2 = LayerScale(width) if scaled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (B, N, C)
        x = x + self.ls1(self.attn(self.norm1(x)))
        return cast(Tensor, x + self.ls2(self.mlp(self.norm2(x))))


class PatchEmbed(nn.Module):
    """The convolution that turns patches into tokens."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, N, C)
        return cast(Tensor, self.proj(x)).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """Images (B, 3, S, S) in, normalised tokens (B, N, C) out, the class token first.

    Parameters
    ----------
    shapes : mapping of str to shape
        Names and shapes of the weights, from which the layout follows; KeyError or ValueError when they are not those
        of a plain ViT.

    Attributes
    ----------
    width : int
    side : int
        Side S of its input in pixels.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.width, _, patch, _ = shapes["patch_embed.proj.weight"]
        if self.width % HEAD:
            raise ValueError(f"its width is {self.width}; expected a multiple of {HEAD}")
        depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
        registers = shapes["reg_token"][1] if "reg_token" in shapes else 0
        positions = shapes["pos_embed"][1]
        squares = next((n for n in (positions, positions - 1) if n**0.5 == int(n**0.5)), 0)
        if not squares:
            raise ValueError(f"it has {positions} positions; expected a square of patches, perhaps with a class token")
        self.side = patch * int(squares**0.5)
        hidden = shapes["blocks.0.mlp.fc1.weight"][0]
        packed, scaled = shapes["blocks.0.mlp.fc2.weight"][1] * 2 == hidden, "blocks.0.ls1.gamma" in shapes
        self.patch_embed = PatchEmbed(self.width, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.width))
        if registers:
            self.reg_token = nn.Parameter(torch.zeros(1, registers, self.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, self.width))
        self.blocks = nn.Sequential(*(Layer(self.width, hidden, packed, scaled) for _ in range(depth)))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        first = [self.cls_token.expand(len(x), -1, -1)]
        placed = self.pos_embed.shape[1] - x.shape[1]  # 1 when the class token has a position of its own
        if placed:
            first[0] = first[0] + self.pos_embed[:, :1]
        if hasattr(self, "reg_token"):
            first.append(self.reg_token.expand(len(x), -1, -1))
        x = torch.cat((*first, x + self.pos_embed[:, placed:]), dim=1)
        return cast(Tensor, self.norm(self.blocks(x)))
