"""Weights of vision transformers under other names than timm's: those of the library transformers, and prefixes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

PREFIXES = "module.", "model.", "backbone.", "encoder.model.", "vit.", "dinov2.", "visual.trunk.", "trunk."
"""What may stand before every name."""
TAKEN = re.compile(
    r"^(cls_token|reg_token|pos_embed|patch_embed\.proj\.(weight|bias)|norm\.(weight|bias)|blocks\.\d+\.)"
)
"""Names of a plain ViT; heads, mask tokens and poolers are left out."""
WHOLE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
PARTS = {
    "attention.output.dense.": "attn.proj.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "norm1.": "norm1.",
    "norm2.": "norm2.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "mlp.weights_in.": "mlp.fc1.",
    "mlp.weights_out.": "mlp.fc2.",
    "mlp.fc1.": "mlp.fc1.",
    "mlp.fc2.": "mlp.fc2.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
"""Of a layer, as transformers names ViT's and DINOv2's, and as timm does."""
LAYER = re.compile(r"^encoder\.layer\.(\d+)\.(.*)$")
QKV = re.compile(r"^attention\.attention\.(query|key|value)\.(weight|bias)$")


def as_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a plain ViT under timm's names, whatever else there is left out."""
    tensors = _without_prefix(tensors)
    if not any(LAYER.match(name) for name in tensors):
        return {name: tensor for name, tensor in tensors.items() if TAKEN.match(name)}
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer = LAYER.match(name)
        if name in WHOLE:
            found[WHOLE[name]] = tensor
        elif layer and (qkv := QKV.match(layer[2])):
            parts.setdefault(f"blocks.{layer[1]}.attn.qkv.{qkv[2]}", {})[qkv[1]] = tensor
        elif layer and (part := next((p for p in PARTS if layer[2].startswith(p)), None)):
            found[f"blocks.{layer[1]}.{PARTS[part]}{layer[2].removeprefix(part)}"] = tensor
    for name, three in parts.items():
        found[name] = torch.cat([three[kind] for kind in ("query", "key", "value")])
    return found


def _without_prefix(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return *tensors* without what stands before the name of every part of a ViT."""
    for prefix in PREFIXES:
        for first in ("cls_token", "embeddings.cls_token"):
            if prefix + first in tensors:
                return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return tensors
