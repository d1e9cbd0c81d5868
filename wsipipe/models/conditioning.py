"""Frozen pathology foundation models, whose image-level feature conditions a backbone.

The one door to timm (extra ``pfm``). A folder or file of weights under timm's names needs no timm: see
:mod:`wsipipe.models.vit`.
"""

from __future__ import annotations

import hashlib
import json
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
from wsipipe.models.intact import check_finite
from wsipipe.models.vit import ViT

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
    """

    def __init__(self, name: str, network: nn.Module, config: Mapping[str, Any], device: torch.device) -> None:
        self.name, self.device = name, device
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


def open_encoder(source: str, device: torch.device) -> Encoder:
    """Return the encoder that *source* names.

    Parameters
    ----------
    source : str
        ``hf-hub:OWNER/MODEL`` (needs timm), a folder with ``model.safetensors`` and perhaps ``config.json`` as timm
        saves them, or a ``.safetensors`` file.

    Raises
    ------
    ModelNotFound, NotAModel, ModelError, MissingDependency
    """
    return _from_hub(source, device) if source.startswith(HUB) else _from_disk(Path(source), device)


def encoder_name(source: str) -> str:
    """Return the name under which features of *source* are cached; that of local weights holds their digest.

    Raises
    ------
    ModelNotFound
    """
    if source.startswith(HUB):
        return source
    path = _weights(Path(source))
    with path.open("rb") as file:
        return f"{Path(source).stem}-{hashlib.file_digest(file, 'sha256').hexdigest()[:DIGITS]}"


def check_encoder(card: ModelCard, encoder: Encoder | None) -> None:
    """Refuse a conditioned backbone whose *encoder* is missing, or is not the one that it was trained with.

    Raises
    ------
    SettingsError
    """
    wanted = card.backbone.condition
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


def _from_disk(path: Path, device: torch.device) -> Encoder:
    weights = _weights(path)
    try:
        tensors = {k: v for k, v in safetensors.torch.load_file(weights).items() if not k.startswith("head.")}
        network = ViT({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        network.load_state_dict(tensors)
        config = {"input_size": (3, network.side, network.side), "mean": MEAN, "std": STD, **_config(weights)}
        encoder = Encoder(encoder_name(str(path)), network, config, device)
    except (safetensors.SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NotAModel(
            f"{weights} does not hold a whole plain ViT under timm's names ({reason}); if its download was "
            "interrupted, fetch it again"
        ) from error
    check_finite(weights, tensors)
    return encoder


def _weights(path: Path) -> Path:
    file = path / "model.safetensors" if path.is_dir() else path
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
