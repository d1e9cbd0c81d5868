"""Checkpoints: one safetensors file with the configuration in its header; never pickle.

The header's ``wsipipe`` entry is JSON::

    {"format": 1, "kind": "segmenter", "name": "cmd-t", "licence": "...", "mpp": 0.5,
     "backbone": {"kind": "cmd", "widths": [...], "condition": 0},
     "head": {"kind": "cisca", "widths": [...], "types": []},
     "rules": {"threshold": 0.5, ...}, "classes": {...}, "training": {...},
     "colours": {"mean": [...], "spread": [...]}, "normalise": false,
     "digest": "..."}

``digest`` is that of the tensors (:func:`wsipipe.models.intact.digest_of`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wsipipe.artifacts import atomic_write
from wsipipe.errors import FAILURES, ModelNotFound, NotAModel, SettingsError, in_words
from wsipipe.models import backbone_kinds, zoo
from wsipipe.models.backbone import Backbone, BackboneConfig
from wsipipe.models.card import Rules as Rules
from wsipipe.models.card import check_card
from wsipipe.models.conditioned import EncoderConfig, TileEncoder, WithEncoder
from wsipipe.models.heads import Head, HeadConfig, kinds
from wsipipe.models.intact import check_digest, check_finite, digest_of
from wsipipe.models.space import InLatents, Latents, SpaceConfig
from wsipipe.stain import Change, Colours

FORMAT = 1
_FAILURES: tuple[type[Exception], ...] = (safetensors.SafetensorError, *FAILURES)
FLOATS = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the floating types that weights come in."""
HALF = torch.float16
"""How weights are shipped: half the bytes, and closer to fp32 than bf16 for weights of this size."""


@dataclass(frozen=True)
class ModelCard:
    """What a checkpoint says of itself: everything but the weights.

    ``colours`` are those of the training images; with ``normalise`` slides are brought to them unless asked not to,
    without it those slides whose own are far from them. ``space`` are the latents that the backbone works on, if
    it does not work on pixels. ``encoder`` is what conditions it, where the file holds that too.
    """

    name: str
    backbone: BackboneConfig
    head: HeadConfig | None = None
    mpp: float = 0.5
    rules: Rules = field(default_factory=Rules)
    licence: str = "unknown"
    classes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    colours: Colours | None = None
    normalise: bool = False
    space: SpaceConfig | None = None
    encoder: EncoderConfig | None = None

    @property
    def condition(self) -> int:
        """Width of the feature that has to be given to the network beside the picture; 0 for none."""
        return 0 if self.encoder else self.backbone.condition

    @property
    def scale(self) -> int:
        """Pixels of the picture along a side of one pixel of the finest feature map."""
        return self.backbone.scale * (self.space.scale if self.space else 1)

    @property
    def kind(self) -> str:
        """``segmenter`` with a head, ``backbone`` without."""
        return "segmenter" if self.head else "backbone"

    def to_json(self) -> dict[str, Any]:
        """Return the header entry."""
        said = dataclasses.asdict(self) | {"backbone": backbone_kinds.to_json(self.backbone)}
        said = {part: value for part, value in said.items() if value is not None or part not in ("space", "encoder")}
        return {"format": FORMAT, "kind": self.kind, **said}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelCard:
        """Return the card of a header entry; ValueError when it is not one."""
        check_card(data, FORMAT, kinds())
        head = data.get("head")
        return cls(
            name=data["name"],
            backbone=backbone_kinds.from_json(data["backbone"]),
            head=_head_of(head) if head else None,
            mpp=data["mpp"],
            rules=Rules(**data["rules"]),
            licence=data["licence"],
            classes={k: (v[0], v[1], v[2]) for k, v in data["classes"].items()},
            training=data["training"],
            colours=_colours_of(data["colours"]) if data.get("colours") else None,
            normalise=data.get("normalise", False),
            space=SpaceConfig.from_json(data["space"]) if data.get("space") else None,
            encoder=EncoderConfig.from_json(data["encoder"]) if data.get("encoder") else None,
        )

    def target_colours(self, stain: str) -> Colours | None:
        """Return the colours that slides are to be given, under the setting *stain*; None to leave them as they are.

        Raises
        ------
        SettingsError
            When they are asked for and the model does not know them.
        """
        if stain == "as-is" or (stain == "auto" and not self.normalise):
            return None
        if self.colours is None:
            raise SettingsError(
                f"--stain normalised: model {self.name!r} does not say which colours it was trained on; leave it out, "
                "or fit the model again"
            )
        return self.colours

    def change_for(self, stain: str, own: Colours | None) -> Change:
        """Return what normalises pictures that have the colours *own*, under the setting *stain*; () for nothing.

        Under ``auto``: when the model asks for it, and when *own* are far from the training images' colours.

        Raises
        ------
        SettingsError
            When it is asked for and the model does not know its colours.
        """
        target = self.target_colours(stain)
        if target is None and stain == "auto" and self.is_far(own):
            target = self.colours
        return own.change_to(target) if own and target else ()

    def is_far(self, own: Colours | None) -> bool:
        """Whether colours are so far from those of the training images that normalising pays."""
        return bool(own and self.colours and own.distance_to(self.colours) > 1)


def _head_of(data: dict[str, Any]) -> HeadConfig:
    return HeadConfig(data["kind"], tuple(data["widths"]), tuple(data["types"]), data.get("scale", 1))


def _colours_of(data: dict[str, Any]) -> Colours:
    (a, b, c), (x, y, z) = data["mean"], data["spread"]
    return Colours((a, b, c), (x, y, z))


class Segmenter(nn.Module):
    """A backbone with a head: images in, logits out."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """Return the head's logits (B, K, H, W) for images (B, 3, H, W) in [-1, 1]."""
        return self.head(self.backbone.features(x, z))  # type: ignore[no-any-return]


def build(card: ModelCard) -> nn.Module:
    """Return the network of *card* with fresh weights: a :class:`Segmenter`, or a backbone without head."""
    backbone = backbone_kinds.build(card.backbone)
    if card.space:
        backbone = InLatents(Latents(card.space), backbone)
    if card.encoder:
        backbone = WithEncoder(TileEncoder(card.encoder), backbone)
    return Segmenter(backbone, Head(card.head)) if card.head else backbone


def save(path: Path, network: nn.Module, card: ModelCard, dtype: torch.dtype | None = None) -> None:
    """Write *network* to *path* atomically; floating weights are stored as *dtype* when given.

    Raises
    ------
    NotAModel
        When a weight is NaN or infinite, or would be as *dtype*.
    OutputError
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    if dtype is not None:
        tensors = {k: v.to(dtype) if v.is_floating_point() and "running_" not in k else v for k, v in tensors.items()}
    check_finite(path, tensors)
    header = {"wsipipe": json.dumps(card.to_json() | {"digest": digest_of(tensors)}, sort_keys=True)}
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(tensors, header))


def read_card(path: Path) -> ModelCard:
    """Return the card of the checkpoint at *path* without reading its weights.

    Raises
    ------
    ModelNotFound, NotAModel
    """
    return _header(path)[0]


def _header(path: Path) -> tuple[ModelCard, str | None]:
    """Return the card, and the digest of the tensors where the file states one."""
    if not path.is_file():
        raise ModelNotFound(f"no model at {path}; expected a .safetensors file, or a name from `wsipipe models`")
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            entry = (file.metadata() or {}).get("wsipipe")
        if entry is None:
            raise ValueError("no wsipipe entry in its header")
        found = json.loads(entry)
        return ModelCard.from_json(found), found.get("digest")
    except _FAILURES as error:
        reason = in_words(error)
        raise NotAModel(
            f"{path} is not a wsipipe model ({reason}); expected a .safetensors file made by wsipipe"
        ) from error


def load(path: Path) -> tuple[nn.Module, ModelCard]:
    """Return the network in fp32 and eval mode, and its card.

    Raises
    ------
    ModelNotFound
    NotAModel
        Also when the weights are not those that were saved or shipped, or are no numbers.
    """
    card, stated = _header(path)
    _check_fit(path, card)
    tensors = safetensors.torch.load_file(path)
    check_intact(path, tensors, stated)
    network = build(card)
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return network.eval(), card


def _check_fit(path: Path, card: ModelCard) -> None:
    """Refuse tensors whose names, shapes or kinds are not those of the network of *card*, before any memory is taken.

    Raises
    ------
    NotAModel
    """
    with torch.device("meta"):  # shapes without memory
        network = build(card)
    backbone = network.backbone if isinstance(network, Segmenter) else network
    found = cast(Backbone, backbone).config
    if card.head and (card.head.widths, card.head.scale) != (found.feature_widths, card.scale):
        raise _unfit(path, f"its head is for features {card.head.widths}, its backbone has {found.feature_widths}")
    wanted = {k: (tuple(v.shape), v.is_floating_point()) for k, v in network.state_dict().items()}
    with safetensors.safe_open(str(path), "pt") as file:
        found = {k: file.get_slice(k) for k in file.keys()}  # noqa: SIM118 it is no dict
        stated = {k: (tuple(v.get_shape()), v.get_dtype() in FLOATS) for k, v in found.items()}
    for name in sorted(set(wanted) | set(stated)):
        if wanted.get(name) != stated.get(name):
            raise _unfit(path, f"{name} is {_in_words(stated.get(name))}, the network's {_in_words(wanted.get(name))}")


def _unfit(path: Path, why: str) -> NotAModel:
    return NotAModel(f"{path}: weights do not fit the configuration in the header ({why}); copy the file again")


def _in_words(tensor: tuple[tuple[int, ...], bool] | None) -> str:
    if tensor is None:
        return "absent"
    shape, floating = tensor
    return f"{list(shape)}{'' if floating else ' of whole numbers'}"


def check_intact(path: Path, tensors: dict[str, Tensor], stated: str | None) -> None:
    """Refuse weights that are not those shipped under this name, not those that were saved, or no numbers.

    Raises
    ------
    NotAModel
    """
    check_finite(path, tensors)
    shipped = zoo.shipped_digest(path)
    if shipped is None:
        check_digest(path, tensors, stated)
    elif (found := model_hash(path)) != shipped:
        raise NotAModel(
            f"{path} is not the model that wsipipe ships under this name (its SHA-256 is {found[:16]}…, expected "
            f"{shipped[:16]}…); install wsipipe again"
        )


def model_hash(path: Path) -> str:
    """Return the SHA-256 of the file: the model's part of every fingerprint."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
