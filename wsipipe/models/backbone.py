"""What a backbone is: whoever pretrains, fits, embeds, saves or shows one asks for this and no more.

A further backbone is a file with its configuration and its network, and a line in
:data:`wsipipe.models.backbone_kinds.KINDS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

TILE = 256
"""Side of the square the network sees, in pixels (some backbones normalise over the whole of it)."""
FEATURE_TIMESTEP = 50
"""Timestep at which features are taken (section 4.1.3 of the CMD paper)."""
INITS = ("xavier", "torch")
"""How weights may start; see :func:`initialise`."""
Module = TypeVar("Module", bound=nn.Module)


class BackboneConfig(Protocol):
    """Size of a backbone: a frozen dataclass of numbers, texts and tuples of them, which a checkpoint's header holds.

    Its ``__post_init__`` refuses what no network can be built from (ValueError).
    """

    @property
    def condition(self) -> int:
        """Width D of the foundation-model feature; 0 for an unconditioned backbone."""
        ...

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of each map that :meth:`Backbone.features` returns, coarse to fine."""
        ...

    @property
    def deepest_width(self) -> int:
        """Channels of the deepest map."""
        ...

    @property
    def scale(self) -> int:
        """Pixels of the image along a side of one pixel of the finest map."""
        ...

    def in_latents(self, channels: int) -> BackboneConfig:
        """Return the configuration for latents of so many channels in place of pixels."""
        ...


class Folded(nn.Module, ABC):
    """A backbone for one constant condition: a function of the image alone, without gradient."""

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Any]:
        """Return the deepest map (B, C, h, w) of images (B, 3, H, W) in [-1, 1], and what :meth:`decode` needs too."""

    @abstractmethod
    def decode(self, deepest: Tensor, rest: Any) -> list[Tensor]:
        """Return the maps that heads use, coarse to fine, of what :meth:`encode` returns."""

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the maps that heads use; see :meth:`Backbone.features`."""
        return self.decode(*self.encode(x))

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.features(x)


class Backbone(nn.Module, ABC):
    """A network that fills in what is masked of an image, and serves dense features.

    Attributes
    ----------
    config : BackboneConfig
    output : nn.Module
        The layers that only the reconstruction uses.
    """

    config: Any
    output: nn.Module

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        """Reconstruct the image.

        Parameters
        ----------
        x : Tensor (B, C, H, W)
            Masked image in [-1, 1] (or masked latents), masked pixels 0.
        t : Tensor (B,)
            Timesteps, 1 to 1000, unscaled.
        z : Tensor (B, D), optional
            Frozen foundation-model feature.

        Returns
        -------
        Tensor (B, C, H, W)
        """

    @abstractmethod
    def both(self, x: Tensor, z: Tensor | None, timestep: int) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest map and the maps that heads use, coarse to fine, of unmasked images *x*."""

    @abstractmethod
    def fold(self, timestep: int = FEATURE_TIMESTEP) -> Folded:
        """Return what computes the features at *timestep* without a condition, faster; this network stays as it is."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return the blocks in the order they run: what is recomputed to save memory, and compiled."""

    @abstractmethod
    def open_gates(self, gate: float = 0.5) -> None:
        """Give every block's gate the bias *gate*, for training from random weights: they start closed."""

    @abstractmethod
    def zero_start(self) -> None:
        """Set to zero what starts there: the modulations, and the last layer."""

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of each map that :meth:`features` returns."""
        widths: tuple[int, ...] = self.config.feature_widths
        return widths

    @property
    def reconstructs(self) -> bool:
        """Whether the layer that gives the picture has ever been trained: it starts at zero."""
        last = [m for m in self.output.modules() if isinstance(m, (nn.Conv2d, nn.Linear))][-1]
        return bool(last.weight.any())

    def features(self, x: Tensor, z: Tensor | None = None, timestep: int = FEATURE_TIMESTEP) -> list[Tensor]:
        """Return the maps that heads use, coarse to fine.

        Parameters
        ----------
        x : Tensor (B, 3, H, W)
            Unmasked image in [-1, 1].
        """
        return self.both(x, z, timestep)[1]


class Wrapped(Backbone):
    """A backbone together with frozen networks before it: what is trained, opened or run again is the inner one.

    Attributes
    ----------
    inner : Backbone
    """

    inner: Backbone

    @property
    def output(self) -> nn.Module:  # type: ignore[override]
        """The layers that only the reconstruction uses."""
        return self.inner.output

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let the inner backbone get gradients, or not; what is before it never does."""
        self.inner.requires_grad_(requires_grad)
        return self

    def blocks(self) -> list[nn.Module]:
        """Return the backbone's blocks."""
        return self.inner.blocks()

    def open_gates(self, gate: float = 0.5) -> None:
        """Give every block's gate the bias *gate*."""
        self.inner.open_gates(gate)

    def zero_start(self) -> None:
        """Set to zero what starts there."""
        self.inner.zero_start()


def initialise(backbone: Backbone, init: str = "xavier") -> None:
    """Give *backbone*, whose weights are torch's, those that *init* names.

    Parameters
    ----------
    init : {'xavier', 'torch'}
        xavier: as diffusion U-Nets and DiT start: Xavier-uniform weights and zero biases, those of timestep embedders
        normal with a spread of 0.02, then the zero starts. torch: the layers' own.
    """
    if init == "torch":
        return
    for name, module in backbone.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            if "timestep" in name.split("."):
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    backbone.zero_start()


@torch.no_grad()
def set_gates(modulation: nn.Linear, part: int, parts: int, gate: float) -> None:
    """Set the bias of chunk *part* of *parts* of what a *modulation* gives to *gate*."""
    modulation.bias.chunk(parts)[part].fill_(gate)
