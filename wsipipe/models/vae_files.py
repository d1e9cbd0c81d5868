"""Autoencoders in folders, as the library diffusers writes them: ``config.json`` and the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from wsipipe.artifacts import atomic_write, write_json
from wsipipe.errors import FAILURES, ModelNotFound, NotAModel, in_words
from wsipipe.models.checks import expect, short
from wsipipe.models.intact import check_finite
from wsipipe.models.vae import VAE, VAEConfig

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
"""Files of a folder."""
_FAILURES: tuple[type[Exception], ...] = (safetensors.SafetensorError, *FAILURES)
OLD_NAMES = {"query.": "to_q.", "key.": "to_k.", "value.": "to_v.", "proj_attn.": "to_out.0."}
"""What parts of the attention were called in older files, and are now."""


def read_vae(folder: Path) -> VAE:
    """Return the autoencoder in *folder*, or in its ``vae/``: ``config.json`` and weights as diffusers writes them.

    Raises
    ------
    ModelNotFound, NotAModel
    """
    place = next((f for f in (folder, folder / "vae") if (f / CONFIG).is_file() and (f / WEIGHTS).is_file()), None)
    if place is None:
        raise ModelNotFound(
            f"no autoencoder in {folder}; expected a folder with {CONFIG} and {WEIGHTS}, such as `wsipipe pretrain "
            "--autoencoder` makes"
        )
    try:
        config = _config(json.loads((place / CONFIG).read_text(encoding="utf-8")))
        tensors = {_new_name(name): t for name, t in safetensors.torch.load_file(place / WEIGHTS).items()}
        network = VAE(config)
        wanted = network.state_dict()
        network.load_state_dict({k: _linear(t.float(), wanted.get(k)) for k, t in tensors.items()})
    except _FAILURES as error:
        reason = " ".join(in_words(error).split())[:200]
        raise NotAModel(
            f"{place} holds no whole autoencoder as diffusers writes it ({reason}); copy it again"
        ) from error
    check_finite(place / WEIGHTS, tensors)
    return network.eval().requires_grad_(False)


def write_vae(folder: Path, network: VAE) -> None:
    """Write *network* to *folder* as :func:`read_vae` and diffusers read it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    check_finite(folder / WEIGHTS, tensors)
    with atomic_write(folder / WEIGHTS) as file:
        file.write(safetensors.torch.save(tensors, {"format": "pt"}))
    write_json(folder / CONFIG, _described(network.config))


def _described(config: VAEConfig) -> dict[str, Any]:
    levels = len(config.widths)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(config.widths),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": config.latents,
        "layers_per_block": config.layers,
        "norm_num_groups": config.groups,
        "sample_size": 256,
        "scaling_factor": config.scaling,
    }


def _config(said: Any) -> VAEConfig:
    """Return the configuration that a ``config.json`` states; ValueError when it is of something else."""
    expect(isinstance(said, dict), CONFIG, said, "an object")
    found = said.get("_class_name", "AutoencoderKL")
    expect(found == "AutoencoderKL", "class", found, "AutoencoderKL")
    for key, wanted in (("in_channels", 3), ("out_channels", 3), ("act_fn", "silu")):
        expect(said.get(key, wanted) == wanted, key, said.get(key), short(wanted))
    for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        expect(set(said.get(key, [kind])) == {kind}, key, said.get(key), f"{kind} throughout")
    widths = said.get("block_out_channels")
    expect(isinstance(widths, list), "block_out_channels", widths, "a list of widths")
    rest = (("layers_per_block", "layers"), ("latent_channels", "latents"), ("norm_num_groups", "groups"))
    named = {ours: said[theirs] for theirs, ours in (*rest, ("scaling_factor", "scaling")) if theirs in said}
    return VAEConfig(tuple(widths), **named)


def _new_name(name: str) -> str:
    for old, new in OLD_NAMES.items():
        name = name.replace(f"attentions.0.{old}", f"attentions.0.{new}")
    return name


def _linear(tensor: Tensor, wanted: Tensor | None) -> Tensor:
    """Return a weight of attention that was kept as one of a 1x1 convolution as one of a linear layer."""
    old = wanted is not None and wanted.ndim == 2 and tensor.ndim == 4 and tensor.shape[2:] == (1, 1)
    return tensor[:, :, 0, 0] if old else tensor
