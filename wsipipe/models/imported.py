"""A foundation model as a backbone of wsipipe: one file that `fit`, `segment`, `features` and `visualize` take."""

from __future__ import annotations

from pathlib import Path

from wsipipe.errors import ModelError, SettingsError
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.conditioning import MEAN, STD, encoder_name, read_vit
from wsipipe.models.encoders import fetched, known, named
from wsipipe.models.vit_backbone import ViTBackbone, config_of, taken_of
from wsipipe.runs import claimed


def import_encoder(source: str, output: Path, grid: int = 32, blocks: str = "last", mpp: float = 0.5) -> Path:
    """Write the backbone that *source* names to *output* and return it.

    Parameters
    ----------
    source : str
        A name of :mod:`wsipipe.models.encoders`, ``NAME=FOLDER``, or a folder of a plain ViT.
    grid : {16, 32, 64}
        Patches along a side of a 256 px tile.
    blocks : {'last', 'shallow', 'deep', 'mixed'}
        Whose tokens the heads see.
    mpp : float
        Resolution that it works at, µm/px.

    Raises
    ------
    ModelNotFound, NotAModel, ModelError, MissingDependency, SettingsError
    """
    found = named(source)
    entry, folder = found if found else (None, Path(source))
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
