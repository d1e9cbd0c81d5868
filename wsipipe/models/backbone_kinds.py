"""The backbones by name. A further one is a file, and a line in :data:`KINDS`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import torch

from wsipipe.models import attention_unet, cmd, dit, pixels, vit_backbone
from wsipipe.models.backbone import Backbone, BackboneConfig
from wsipipe.models.baselines import convnext, nnunet, swin, transunet, vit_adapter
from wsipipe.models.checks import expect


@dataclass(frozen=True)
class Kind:
    """A kind of backbone.

    Attributes
    ----------
    title : str
        As people read it, before the letter of its size.
    network : config -> Backbone
        Its class.
    config : type
        Of its configuration, a frozen dataclass.
    sizes : mapping of str to (condition -> config)
        Usual sizes by letter, for a width of the condition.
    """

    title: str
    network: Callable[[Any], Backbone]
    config: type
    sizes: Mapping[str, Callable[[int], Any]]


KINDS: dict[str, Kind] = {
    "cmd": Kind("CMD", cmd.CMD, cmd.CMDConfig, cmd.SIZES),
    "attention-unet": Kind(
        "Attention U-Net", attention_unet.AttentionUNet, attention_unet.AttentionUNetConfig, attention_unet.SIZES
    ),
    "dit": Kind("DiT", dit.DiT, dit.DiTConfig, dit.SIZES),
    "vit": Kind("ViT", vit_backbone.ViTBackbone, vit_backbone.ViTConfig, vit_backbone.SIZES),
    "convnext": Kind("ConvNeXt", convnext.ConvNeXt, convnext.ConvNeXtConfig, convnext.SIZES),
    "swin": Kind("Swin V2", swin.Swin, swin.SwinConfig, swin.SIZES),
    "nnunet": Kind("nnU-Net", nnunet.NNUNet, nnunet.NNUNetConfig, nnunet.SIZES),
    "transunet": Kind("TransUNet", transunet.TransUNet, transunet.TransUNetConfig, transunet.SIZES),
    "vit-adapter": Kind("ViT-Adapter", vit_adapter.ViTAdapter, vit_adapter.ViTAdapterConfig, vit_adapter.SIZES),
    "rgb": Kind("pixels", pixels.PixelsBackbone, pixels.PixelsConfig, pixels.SIZES),
}
"""By what ``--backbone`` takes and headers of checkpoints state; :data:`wsipipe.settings.BACKBONES` lists the names."""
DEFAULT = "cmd"


def kind_of(config: BackboneConfig) -> str:
    """Return the name of the kind that *config* belongs to."""
    return next(name for name, kind in KINDS.items() if type(config) is kind.config)


def build(config: BackboneConfig) -> Backbone:
    """Return a backbone with fresh weights."""
    return KINDS[kind_of(config)].network(config)


def sized(kind: str, size: str, condition: int = 0) -> BackboneConfig:
    """Return the configuration of a usual size, such as ``T``."""
    return cast(BackboneConfig, KINDS[kind].sizes[size](condition))


def random(name: str) -> BackboneConfig:
    """Return what starts from random weights under *name*: a size of CMD, such as ``T``, or ``dit-T``, or ``rgb``."""
    if name in KINDS:
        return sized(name, "")
    kind, _, size = name.rpartition("-")
    return sized(kind or DEFAULT, size)


def without_condition(config: BackboneConfig) -> BackboneConfig:
    """Return *config* for a backbone that takes no condition."""
    return cast(BackboneConfig, dataclasses.replace(cast(Any, config), condition=0))


def title_of(config: BackboneConfig) -> str:
    """Return kind and size, such as ``CMD-T``, or its widest finest map where it is no usual size."""
    kind = KINDS[kind_of(config)]
    letter = next((k for k, size in kind.sizes.items() if size(config.condition) == config), None)
    if letter == "":
        return kind.title
    return f"{kind.title}-{letter}" if letter else f"{kind.title} of width {config.feature_widths[-1]}"


def to_json(config: BackboneConfig) -> dict[str, Any]:
    """Return what a header says of a backbone: its kind and its configuration."""
    return {"kind": kind_of(config), **dataclasses.asdict(cast(Any, config))}


def from_json(said: Any) -> BackboneConfig:
    """Return the configuration that a header states; one that names no kind is CMD's.

    Raises
    ------
    ValueError
        Says which part, its value, and what was expected.
    """
    expect(isinstance(said, dict), "backbone", said, "an object")
    name = said.get("kind", DEFAULT)
    expect(isinstance(name, str) and name in KINDS, "kind of backbone", name, f"one of {', '.join(KINDS)}")
    parts = {field.name: field for field in fields(KINDS[name].config)}
    needed = [k for k, field in parts.items() if field.default is dataclasses.MISSING]
    given = {k: v for k, v in said.items() if k != "kind"}
    wanted = f"{' and '.join(needed)}, and perhaps {', '.join(k for k in parts if k not in needed)}"
    expect(set(needed) <= set(given) <= set(parts), "backbone", said, wanted)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return cast(BackboneConfig, KINDS[name].config(**values))


def on_meta(config: BackboneConfig) -> Backbone:
    """Return the network without memory: shapes and counts."""
    with torch.device("meta"):
        return build(config)
