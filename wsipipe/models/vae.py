"""A variational autoencoder, in whose latents a backbone can be pretrained: the network of Stable Diffusion's.

It is ``AutoencoderKL`` of the library diffusers, down to the names of its weights, so that a folder that the library
writes is read without it, and it reads what is written here: :mod:`wsipipe.models.vae_files`.
Shape letters: B batch, C channels, H W pixels; latents are (B, 4, H/8, W/8).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from wsipipe.models.checks import WIDEST, expect, many, number, whole

SCALING = 0.18215
"""Of Stable Diffusion's: brings latents to a spread of 1."""


@dataclass(frozen=True)
class VAEConfig:
    """Size of an autoencoder.

    Attributes
    ----------
    widths : tuple of int
        Channels from the finest level to the coarsest; each but the last halves the resolution.
    layers : int
        Residual blocks of a level of the encoder; the decoder has one more.
    latents : int
        Channels of the latents.
    groups : int
        Of the group norms.
    scaling : float
        What latents are multiplied by.
    """

    widths: tuple[int, ...]
    layers: int = 2
    latents: int = 4
    groups: int = 32
    scaling: float = SCALING

    def __post_init__(self) -> None:
        good = many(whole(1, WIDEST))(self.widths) and len(self.widths) <= 6
        expect(good, "autoencoder's widths", self.widths, f"one to six numbers of channels to {WIDEST}")
        expect(whole(1, 1024)(self.groups), "autoencoder's groups", self.groups, "1 to 1024")
        even = not any(width % self.groups for width in self.widths)
        expect(even, "autoencoder's widths", self.widths, f"multiples of its groups, {self.groups}")
        expect(whole(1, 16)(self.layers), "autoencoder's layers", self.layers, "1 to 16")
        expect(whole(1, 64)(self.latents), "autoencoder's latents", self.latents, "1 to 64 channels")
        expect(number(1e-6, 1e6)(self.scaling), "autoencoder's scaling", self.scaling, "a factor from 1e-6 to 1e6")

    @property
    def factor(self) -> int:
        """Pixels along a side of a latent."""
        return int(2 ** (len(self.widths) - 1))


SD = VAEConfig((128, 256, 512, 512))
"""Stable Diffusion's, 83.7 M parameters."""
SMALL = VAEConfig((32, 64, 128, 128), layers=1, groups=16)
"""What ``wsipipe pretrain --autoencoder`` trains, 3.9 M parameters."""


class Residual(nn.Module):
    """Two 3x3 convolutions with group norm and SiLU before each, added to the input."""

    def __init__(self, inputs: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width, eps=1e-6)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        if inputs != width:
            self.conv_shortcut = nn.Conv2d(inputs, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return cast(Tensor, y + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x))


class Attention(nn.Module):
    """Self-attention over all places, with one head."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        y = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, N, C)
        y = F.scaled_dot_product_attention(self.to_q(y), self.to_k(y), self.to_v(y))
        return cast(Tensor, x + self.to_out[0](y).transpose(1, 2).reshape(x.shape))


class Middle(nn.Module):
    """Residual block, attention, residual block, at the coarsest level."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(width, groups)])
        self.resnets = nn.ModuleList(Residual(width, width, groups) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.resnets[1](self.attentions[0](self.resnets[0](x))))


class Resample(nn.Module):
    """A 3x3 convolution that halves the resolution, or follows on its doubling."""

    def __init__(self, width: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(width, width, 3, stride=2 if down else 1, padding=0 if down else 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2.0, mode="nearest")
        return cast(Tensor, self.conv(x))


class Level(nn.Module):
    """Residual blocks at one resolution, and the way to the next one."""

    def __init__(self, inputs: int, width: int, layers: int, groups: int, down: bool, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(width if k else inputs, width, groups) for k in range(layers))
        self.way = "downsamplers" if down else "upsamplers"
        if not last:
            setattr(self, self.way, nn.ModuleList([Resample(width, down)]))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        return cast(Tensor, getattr(self, self.way)[0](x)) if hasattr(self, self.way) else x


class Encoder(nn.Module):
    """Images (B, 3, H, W) to means and logarithms of variances (B, 2 latents, H/8, W/8)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        w, g = config.widths, config.groups
        self.conv_in = nn.Conv2d(3, w[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(a, b, config.layers, g, True, k == len(w) - 1) for k, (a, b) in enumerate(zip((w[0], *w), w))
        )
        self.mid_block = Middle(w[-1], g)
        self.conv_norm_out = nn.GroupNorm(g, w[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(w[-1], 2 * config.latents, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return cast(Tensor, self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x)))))


class Decoder(nn.Module):
    """Latents (B, 4, H/8, W/8) to images (B, 3, H, W)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        w, g = config.widths[::-1], config.groups
        self.conv_in = nn.Conv2d(config.latents, w[0], 3, padding=1)
        self.mid_block = Middle(w[0], g)
        self.up_blocks = nn.ModuleList(
            Level(a, b, config.layers + 1, g, False, k == len(w) - 1) for k, (a, b) in enumerate(zip((w[0], *w), w))
        )
        self.conv_norm_out = nn.GroupNorm(g, w[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(w[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        return cast(Tensor, self.conv_out(F.silu(self.conv_norm_out(x))))


class VAE(nn.Module):
    """Images in [-1, 1] to latents and back."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latents, 2 * config.latents, 1)
        self.post_quant_conv = nn.Conv2d(config.latents, config.latents, 1)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance of the latents (B, 4, H/8, W/8) of images, unscaled."""
        mean, log_variance = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def encode(self, x: Tensor) -> Tensor:
        """Return the mean latents of images, scaled."""
        return self.moments(x)[0] * self.config.scaling

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of scaled latents."""
        return cast(Tensor, self.decoder(self.post_quant_conv(latents / self.config.scaling)))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def scaled(network: VAE, scaling: float) -> VAE:
    """Return *network* with another factor for its latents."""
    network.config = dataclasses.replace(network.config, scaling=scaling)
    return network
