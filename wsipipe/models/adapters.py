"""Ways to adapt a pretrained backbone with few parameters of its own (PFM-DenseBench, Figure 2).

LoRA and DoRA add a product of two thin matrices to layers that stay frozen, and are merged into them when the training
is done: the model that comes out is of the same kind as before, and no slower. The Transformer adapter appends blocks
to a frozen vision transformer, the CNN adapter a convolutional branch beside it, whose maps go to the head.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wsipipe.errors import SettingsError
from wsipipe.models.backbone import Backbone, BackboneConfig
from wsipipe.models.vit import Layer
from wsipipe.models.vit_backbone import ViTBackbone, ViTConfig
from wsipipe.settings import FitSettings

LOW_RANK = ("lora", "dora")
APPENDED = 2
"""Blocks of the Transformer adapter."""
BRANCH = 32
"""Width of the CNN adapter."""
LAYERS = {"attn.qkv": 3, "attn.proj": 1, "qkv": 3, "proj": 1, "expand": 1, "project": 1}
"""Layers that low ranks are added to, by the end of their name, and of how many matrices each is: queries, keys, values
and outputs of attention; the pointwise layers of CMD."""
Module = TypeVar("Module", bound=nn.Module)


class LowRank(nn.Module):
    """A weight plus a product of rank *rank*; with *magnitude*, its rows brought to learned lengths (DoRA).

    Parameters
    ----------
    weight : Tensor (outputs, inputs)
        As it is pretrained.
    rank : int
    parts : int
        Matrices that *weight* stacks, each with a product of its own.
    magnitude : bool
    """

    def __init__(self, weight: Tensor, rank: int, parts: int, magnitude: bool) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.a = nn.Parameter(torch.empty(parts, rank, inputs))
        self.b = nn.Parameter(torch.zeros(parts, outputs // parts, rank))
        nn.init.kaiming_uniform_(self.a, math.sqrt(5))
        self.magnitude = nn.Parameter(weight.detach().norm(dim=1, keepdim=True).clone()) if magnitude else None

    def forward(self, weight: Tensor) -> Tensor:
        changed = weight + (self.b @ self.a).flatten(0, 1)
        if self.magnitude is None:
            return changed
        lengths = torch.linalg.vector_norm(changed, dim=1, keepdim=True).clamp_min(1e-12)
        return cast(Tensor, changed * (self.magnitude / lengths))


def check(settings: FitSettings, pretrained: bool) -> None:
    """Refuse settings that do not go with adapting a backbone, which must be *pretrained*.

    Raises
    ------
    SettingsError
    """
    if settings.adapt == "none":
        return
    if not pretrained or settings.unfreeze or settings.types_only:
        raise SettingsError(
            "--adapt is for a pretrained backbone that stays frozen otherwise; name one with --backbone, and leave "
            "--unfreeze and --types-only out"
        )
    if settings.adapt == "cnn" and settings.head == "decoder":
        raise SettingsError("--adapt cnn adds maps, and --head decoder sees one of them; take --head light or sota")


def config_for(config: BackboneConfig, how: str) -> BackboneConfig:
    """Return the configuration of a backbone with the parts that adapting it as *how* says adds.

    Raises
    ------
    SettingsError
        When backbones of this kind cannot be adapted so.
    """
    if how in ("none", *LOW_RANK):
        return config
    if not isinstance(config, ViTConfig):
        raise SettingsError(
            f"--adapt {how} is for vision transformers; expected lora, dora or --unfreeze for this backbone"
        )
    if how == "cnn":
        return dataclasses.replace(config, branch=BRANCH)
    taken = (*config.taken[:-1], config.taken[-1] + APPENDED)
    return dataclasses.replace(config, depth=config.taken[-1] + 1 + APPENDED, taken=taken)


def adapt(backbone: Backbone, how: str, rank: int) -> None:
    """Freeze *backbone* but for what adapting it as *how* says adds, and start that at no effect.

    Raises
    ------
    SettingsError
    """
    backbone.requires_grad_(False)
    if how in LOW_RANK:
        _add_ranks(backbone, rank, how == "dora")
    elif how == "cnn":
        cast(nn.Module, cast(ViTBackbone, backbone).branch).requires_grad_(True)
    else:
        for block in backbone.blocks()[-APPENDED:]:
            layer = cast(Layer, block)
            for parameter in (*layer.attn.proj.parameters(), *layer.mlp.fc2.parameters()):
                nn.init.zeros_(parameter)
            block.requires_grad_(True)


def _add_ranks(backbone: Backbone, rank: int, magnitude: bool) -> None:
    found = 0
    for block in backbone.blocks():
        for name, layer in list(block.named_modules()):
            parts = LAYERS.get(name)
            if parts and isinstance(layer, nn.Linear):
                low = LowRank(layer.weight, rank, parts, magnitude).to(layer.weight.device)
                parametrize.register_parametrization(layer, "weight", low)
                layer.parametrizations.weight.original.requires_grad_(False)  # type: ignore[union-attr]
                found += 1
    if not found:
        raise SettingsError("--adapt lora and dora are for linear layers, and this backbone's blocks have none")


def merged(network: Module) -> Module:
    """Return *network*, a copy when low ranks were added to it: with them in its weights, under its old names."""
    if not any(parametrize.is_parametrized(module) for module in network.modules()):
        return network
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return network
