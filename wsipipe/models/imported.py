"""A foundation model as a backbone of wsipipe: one file that `fit`, `segment`, `features` and `visualize` take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from wsipipe.errors import ModelError, NotAModel, SettingsError
from wsipipe.models import backbone_kinds, checkpoint
from wsipipe.models.backbone import Backbone
from wsipipe.models.baselines import convnext, swin
from wsipipe.models.baselines.stages import TAKEN
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.conditioning import MEAN, STD, encoder_name, read_tensors, read_vit
from wsipipe.models.encoders import EncoderEntry, fetched, known, named
from wsipipe.models.vit_backbone import ViTBackbone, config_of, taken_of
from wsipipe.runs import claimed


def import_encoder(source: str, output: Path, grid: int = 32, blocks: str = "last", mpp: float = 0.5) -> Path:
    """Write the backbone that *source* names to *output* and return it.

    Parameters
    ----------
    source : str
        A name of :mod:`wsipipe.models.encoders`, ``NAME=FOLDER``, or a folder of a plain ViT, a ConvNeXt or a Swin V2
        under timm's names.
    grid : {16, 32, 64}
        Patches along a side of a 256 px tile.
    blocks : {'last', 'shallow', 'deep', 'mixed'}
        Whose tokens the heads see; of a ConvNeXt or Swin V2, which stages.
    mpp : float
        Resolution that it works at, µm/px.

    Raises
    ------
    ModelNotFound, NotAModel, ModelError, MissingDependency, SettingsError
    """
    found = named(source)
    entry, folder = found if found else (None, Path(source))
    if kind := _stages_of(entry, folder, source):
        return _staged(kind, entry, folder, source, output, blocks, mpp)
    if entry and entry.layout != "vit":
        plain = ", ".join(name for name, one in known().items() if one.layout == "vit")
        raise ModelError(f"{entry.title} is no plain ViT; those that can be backbones: {plain}")
    network, config = read_vit(folder or fetched(entry))  # type: ignore[arg-type]
    mean = config.get("mean", entry.mean if entry else MEAN)
    std = config.get("std", entry.std if entry else STD)
    taken = taken_of(len(network.blocks), blocks)
    try:
        size = config_of(network, grid=grid, taken=taken, mean=tuple(mean), std=tuple(std))
    except ValueError as error:
        raise SettingsError(f"{source}: {error}") from error
    backbone = ViTBackbone(size)
    backbone.vit.load_state_dict(network.state_dict())
    card = ModelCard(
        entry.name if entry else Path(source).stem,
        size,
        mpp=mpp,
        licence=entry.licence if entry else "unknown",
        training={"imported": encoder_name(source)},
    )
    with claimed(output):
        checkpoint.save(output, backbone, card)
    return output


STAGED: dict[str, tuple[str, Callable[..., Any]]] = {
    "convnext": ("stages.", convnext.read_config),
    "swin": ("layers.", swin.read_config),
}
"""Kinds with stages: how the names of their weights begin, and what reads their size."""


def _stages_of(entry: EncoderEntry | None, folder: Path | None, source: str) -> str:
    """Return the kind of the network where it is one with stages, "" otherwise."""
    if entry:
        return next((kind for kind in STAGED if kind in entry.hub), "")
    names = read_tensors(folder or Path(source))[1]
    return next((kind for kind, (start, _) in STAGED.items() if any(name.startswith(start) for name in names)), "")


def _staged(
    kind: str, entry: EncoderEntry | None, folder: Path | None, source: str, output: Path, blocks: str, mpp: float
) -> Path:
    """Write the backbone of a ConvNeXt or Swin V2 under timm's names."""
    weights, tensors, config = read_tensors(folder or fetched(entry))  # type: ignore[arg-type]
    other = {"mean": tuple(config.get("mean", MEAN)), "std": tuple(config.get("std", STD))}
    taken = TAKEN[blocks]
    try:
        size = STAGED[kind][1]({name: tuple(t.shape) for name, t in tensors.items()}, taken=taken, **other)
        backbone = backbone_kinds.build(size)
        wanted = [name for name in backbone.state_dict() if not name.startswith("output.")]
        backbone.load_state_dict({name: tensors[name] for name in wanted} | _fresh(backbone))
    except (LookupError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NotAModel(f"{weights} does not hold a whole {kind} under timm's names ({reason})") from error
    card = ModelCard(
        entry.name if entry else Path(source).stem,
        size,
        mpp=mpp,
        licence=entry.licence if entry else "unknown",
        training={"imported": encoder_name(source)},
    )
    checkpoint.save(output, backbone, card)
    return output


def _fresh(backbone: Backbone) -> dict[str, Tensor]:
    """Return the layer that only the reconstruction uses, as it starts."""
    return {f"output.{name}": tensor for name, tensor in backbone.output.state_dict().items()}
