"""A plain vision transformer that loads weights saved under timm's names, so that timm need not be installed.

The layout follows from the names and shapes of the tensors: depth, width, patch size, class and register tokens,
layer scale, and GELU or packed SwiGLU. That covers UNI (ViT-L/16) and H0-mini (ViT-B/14 with registers), and the plain
ViTs of :mod:`wsipipe.models.encoders`. Heads are 64 wide, or 80 in a ViT-H of 1280 channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 64
WIDER = {1280: 80}
"""Width of a head by the width of a network, where it is not 64."""


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, C)
        b, n, c = x.shape
        d = WIDER.get(c, HEAD)
        q, k, v = self.qkv(x).view(b, n, 3, c // d, d).permute(2, 0, 3, 1, 4)  # (B, heads, N, d) each
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
        squares = next((n for n in (positions, positions - 1, positions - 1 - registers) if _square(n)), 0)
        if not squares:
            raise ValueError(f"it has {positions} positions; expected a square of patches, perhaps with a class token")
        self.side, self.squares = patch * int(squares**0.5), squares
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
        return cast(Tensor, self.norm(self.blocks(self.placed(x))))

    @property
    def prefix(self) -> int:
        """Class and register tokens, which come before those of the patches."""
        return 1 + (self.reg_token.shape[1] if hasattr(self, "reg_token") else 0)

    def placed(self, x: Tensor) -> Tensor:
        """Return the tokens of images (B, 3, H, W), with their positions; H and W need not be :attr:`side`."""
        patch = self.patch_embed.proj.kernel_size[0]
        grid = x.shape[-2] // patch, x.shape[-1] // patch
        x = self.patch_embed(x)
        first = self.cls_token.expand(len(x), -1, -1)
        if hasattr(self, "reg_token"):
            first = torch.cat((first, self.reg_token.expand(len(x), -1, -1)), dim=1)
        own = self.pos_embed.shape[1] - self.squares  # class (and register) tokens with positions of their own
        if own:
            first = torch.cat((first[:, :own] + self.pos_embed[:, :own], first[:, own:]), dim=1)
        return torch.cat((first, x + self._positions(own, grid)), dim=1)

    def _positions(self, own: int, grid: tuple[int, int]) -> Tensor:
        """Return the positions of the patches (1, N, C), interpolated to another *grid* than they were made for."""
        side = int(self.squares**0.5)
        found = self.pos_embed[:, own:]
        if grid == (side, side):
            return found
        square = found.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
        resized = F.interpolate(square, size=grid, mode="bicubic", antialias=True, align_corners=False)
        return resized.flatten(2).transpose(1, 2).to(found.dtype)


def _square(n: int) -> bool:
    return n > 0 and n**0.5 == int(n**0.5)
