"""Frozen pathology foundation models, whose image-level feature conditions a backbone.

The one door to timm (extra ``pfm``). Plain vision transformers need no timm, by name or from a folder: see
:mod:`wsipipe.models.encoders` and :mod:`wsipipe.models.vit`.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from wsipipe.errors import MissingDependency, ModelError, ModelNotFound, NotAModel, SettingsError
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.conditioned import TOKENS
from wsipipe.models.encoders import EncoderEntry, fetched, named
from wsipipe.models.intact import check_finite
from wsipipe.models.vit import ViT
from wsipipe.models.vit_names import as_timm

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, which UNI uses too; a ``config.json`` beside the weights may say otherwise."""
HUB = "hf-hub:"
DIGITS = 16
"""Of the digest at the end of an encoder's name."""


class Encoder:
    """A frozen network that gives one feature per image.

    Parameters
    ----------
    name : str
        Under which its features are cached.
    network : nn.Module
        Normalised images (B, 3, S, S) to features (B, D) or tokens (B, N, D), the class token first.
    config : mapping
        ``input_size``, ``mean`` and ``std``, as timm writes them.
    device : torch.device
    token : {'class', 'patch'}
        Which of the tokens is the feature: the class token, or the mean of those of the patches.
    """

    def __init__(
        self, name: str, network: nn.Module, config: Mapping[str, Any], device: torch.device, token: str = TOKENS[0]
    ) -> None:
        self.name, self.device, self.token = name, device, token
        self.network = network.eval().requires_grad_(False).to(device)
        self.side = int(config["input_size"][-1])
        self.mean, self.std = (_channels(config[key], device) for key in ("mean", "std"))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> NDArray[np.float32]:
        """Return the features of *images*.

        Parameters
        ----------
        images : Tensor uint8 (B, H, W, 3)
            Whole, unmasked patches; resized here to what the network takes.

        Returns
        -------
        float32 (B, D)
        """
        if self.token == "patch":
            return np.asarray(self.tokens(images).mean((1, 2)), np.float32)
        out = cast(Tensor, self.network(self._input(images)))
        return (out[:, 0] if out.ndim == 3 else out).float().cpu().numpy()

    @torch.inference_mode()
    def tokens(self, images: Tensor) -> NDArray[np.float32]:
        """Return the tokens of the patches of *images* (B, H, W, 3), without class and register tokens.

        Returns
        -------
        float32 (B, h, w, D)

        Raises
        ------
        ModelError
            When the network has no tokens: it is no vision transformer.
        """
        forward = getattr(self.network, "forward_features", self.network)
        out = forward(self._input(images))
        patch = getattr(getattr(self.network, "patch_embed", None), "proj", None)
        if patch is None or not isinstance(out, Tensor) or out.ndim != 3:
            raise ModelError(f"the encoder {self.name} has no patch tokens to compare; expected a vision transformer")
        side = self.side // int(patch.kernel_size[0])
        return out[:, -side * side :].reshape(len(out), side, side, -1).float().cpu().numpy()

    def _input(self, images: Tensor) -> Tensor:
        """Return *images*, uint8 (B, H, W, 3), as the network takes them: float32 (B, 3, S, S)."""
        where = torch.device("cpu") if self.device.type == "mps" else self.device  # Metal does not resize so
        x = images.to(where).permute(0, 3, 1, 2).float() / 255
        x = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        return (x.to(self.device) - self.mean) / self.std


def open_encoder(source: str, device: torch.device, token: str = TOKENS[0]) -> Encoder:
    """Return the encoder that *source* names, whose feature of an image is its *token*.

    Parameters
    ----------
    source : str
        A name of :mod:`wsipipe.models.encoders` or ``NAME=FOLDER``; ``hf-hub:OWNER/MODEL`` (needs timm); a folder with
        ``model.safetensors`` or ``pytorch_model.bin`` and perhaps ``config.json``, or such a file.

    Raises
    ------
    ModelNotFound, NotAModel, ModelError, MissingDependency
    """
    if source.startswith(HUB):
        encoder = _from_hub(source, device)
    elif found := named(source):
        encoder = _from_list(source, *found, device)
    else:
        encoder = _from_disk(Path(source), encoder_name(source), device)
    encoder.token = token
    return encoder


def token_of(card: ModelCard) -> str:
    """Return which token conditions the backbone of *card*."""
    return str((card.training.get("settings") or {}).get("token", TOKENS[0]))


def encoder_name(source: str) -> str:
    """Return the name of the encoder *source*; that of local weights holds their digest.

    Raises
    ------
    ModelNotFound
    """
    if source.startswith(HUB):
        return source
    found = named(source)
    if found and not found[1]:
        return f"{HUB}{found[0].hub}"
    folder = (found and found[1]) or Path(source)
    path = _weights(folder)
    with path.open("rb") as file:
        return f"{found[0].name if found else folder.stem}-{hashlib.file_digest(file, 'sha256').hexdigest()[:DIGITS]}"


def check_encoder(card: ModelCard, encoder: Encoder | None) -> None:
    """Refuse a conditioned backbone whose *encoder* is missing, or is not the one that it was trained with.

    Raises
    ------
    SettingsError
    """
    wanted = card.condition
    if not wanted:
        return
    name = (card.training.get("settings") or {}).get("encoder") or f"one with features {wanted} wide"
    if encoder is None:
        raise SettingsError(f"the backbone {card.name} is conditioned on an encoder: give it, --encoder {name}")
    width = encoder(torch.zeros(1, 64, 64, 3, dtype=torch.uint8)).shape[1]
    if width != wanted:
        raise SettingsError(
            f"--encoder {encoder.name} gives features {width} wide; the backbone {card.name} was trained with "
            f"{name}, {wanted} wide"
        )
    stated = str(card.training.get("encoder") or HUB)
    if not (encoder.name.startswith(HUB) or stated.startswith(HUB)) and encoder.name[-DIGITS:] != stated[-DIGITS:]:
        raise SettingsError(
            f"--encoder {encoder.name} has other weights than {stated}, with which {card.name} was trained"
        )


def read_vit(path: Path) -> tuple[ViT, dict[str, Any]]:
    """Return the plain ViT whose weights lie at *path*, and what the ``config.json`` beside them says of its input.

    Raises
    ------
    ModelNotFound, NotAModel
    """
    weights, found, config = read_tensors(path)
    try:
        tensors = as_timm(found)
        network = ViT({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        network.load_state_dict(tensors)
    except (RuntimeError, LookupError, *_WRONG) as error:
        raise _not_whole(weights, "plain ViT under timm's names", error) from error
    return network, config


def read_tensors(path: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """Return the file of the weights at *path*, the weights in fp32, and what the ``config.json`` beside them says.

    Raises
    ------
    ModelNotFound, NotAModel
    """
    weights = _weights(path)
    try:
        tensors = {name: tensor.float() for name, tensor in _tensors(weights).items()}
        config = _config(weights)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, LookupError, *_WRONG) as error:
        raise _not_whole(weights, "network", error) from error
    check_finite(weights, tensors)
    return weights, tensors, config


def _not_whole(weights: Path, what: str, error: Exception) -> NotAModel:
    reason = " ".join(str(error).split())[:200]
    return NotAModel(
        f"{weights} does not hold a whole {what} ({reason}); if its download was interrupted, fetch it again"
    )


_WRONG = ValueError, TypeError, EOFError


def _tensors(weights: Path) -> dict[str, Tensor]:
    if weights.suffix == ".safetensors":
        return safetensors.torch.load_file(weights)
    found = torch.load(weights, map_location="cpu", weights_only=True)  # tensors only: no code of the file is run
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}


def _from_disk(path: Path, name: str, device: torch.device, entry: EncoderEntry | None = None) -> Encoder:
    network, config = read_vit(path)
    side = entry.side if entry else network.side
    said = {"mean": entry.mean, "std": entry.std} if entry else {"mean": MEAN, "std": STD}
    return Encoder(name, network, {"input_size": (3, side, side), **said, **config}, device)


def _from_list(source: str, entry: EncoderEntry, folder: Path | None, device: torch.device) -> Encoder:
    """Return an encoder of the list, its weights in *folder* or from the hub."""
    if entry.layout == "timm" and folder is None:
        return _from_hub(f"{HUB}{entry.hub}", device)
    if entry.layout != "vit":
        raise ModelError(
            f"{entry.title} is no plain ViT, and wsipipe cannot build it from weights on disk; it needs its makers' "
            "package" + ("" if entry.layout == "own" else f", or timm: --encoder {entry.name}")
        )
    return _from_disk(folder or fetched(entry), encoder_name(source), device, entry)


def _weights(path: Path) -> Path:
    safe, old = path / "model.safetensors", path / "pytorch_model.bin"
    file = path if not path.is_dir() else old if old.is_file() and not safe.is_file() else safe
    if not file.is_file():
        raise ModelNotFound(f"no encoder at {file}; expected {HUB}OWNER/MODEL, a folder with model.safetensors, or one")
    return file


def _config(weights: Path) -> dict[str, Any]:
    """Return mean, std and input size of the ``config.json`` beside *weights*, if there is one."""
    file = weights.with_name("config.json")
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    stated = content.get("pretrained_cfg", content)
    return {key: stated[key] for key in ("mean", "std", "input_size") if key in stated}


def _from_hub(source: str, device: torch.device) -> Encoder:
    """Return an encoder that timm builds, and downloads when it is not cached."""
    try:
        import timm
    except ImportError as error:
        raise MissingDependency.of("timm", "pfm", f"--encoder {source}") from error
    try:
        network = timm.create_model(source, pretrained=True, num_classes=0, **_arguments(timm, source))
    except (OSError, RuntimeError, ValueError, KeyError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the weights of {source} cannot be had ({type(error).__name__}: {reason}); check the network, and that "
            "their licence is accepted at the hub (`hf auth login`); the same command tries again. A copy on disk: "
            "--encoder FOLDER"
        ) from error
    return Encoder(source, network, network.pretrained_cfg, device)


def _arguments(timm: Any, source: str) -> dict[str, Any]:
    """Return what the makers of an encoder want timm to be told."""
    known = source.removeprefix(HUB).lower()
    if known == "mahmoodlab/uni":
        return {"init_values": 1e-5, "dynamic_img_size": True}
    if known == "bioptimus/h0-mini":
        return {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    return {}


def _channels(values: Any, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)
