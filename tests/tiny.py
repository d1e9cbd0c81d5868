"""The smallest network that has every part of the real one, and a picture of discs to show it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.cmd import CMD, CMDConfig, Output
from wsipipe.models.cmd_block import GRN, Block
from wsipipe.models.heads import HeadConfig
from wsipipe.train.fitting import targets_of
from wsipipe.train.losses import Targets
from wsipipe.train.samples import Sample

WIDTHS = (8, 8, 8, 16, 16, 32)
FEATURES = (16, 16, 8, 8, 8, 8)


def backbone(condition: int = 0, seed: int = 0) -> CMD:
    """Return a fresh backbone: gates closed, output zero."""
    torch.manual_seed(seed)
    return CMD(CMDConfig(WIDTHS, condition))


def card(head: str = "cisca", types: tuple[str, ...] = ()) -> ModelCard:
    return ModelCard("tiny", CMDConfig(WIDTHS), HeadConfig(head, FEATURES, types), licence="CC0-1.0")


def segmenter(head: str = "cisca", types: tuple[str, ...] = (), seed: int = 0) -> Segmenter:
    """Return a segmenter in eval mode in which every weight matters."""
    torch.manual_seed(seed)
    return cast(Segmenter, shake(checkpoint.build(card(head, types))).eval())


@torch.no_grad()
def shake(network: nn.Module) -> nn.Module:
    """Move all that starts at zero or one (modulations, last layer, GRN, batch norm) to random values; return it."""
    for module in network.modules():
        if isinstance(module, (Block, Output)):
            _add_noise(module.modulation)
        if isinstance(module, Output):
            _add_noise(module.rgb)
        if isinstance(module, (GRN, nn.BatchNorm2d)):
            _add_noise(module)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return network


def _add_noise(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.add_(torch.randn_like(parameter) * 0.3)


def disc_labels(side: int, *discs: tuple[float, float, float]) -> NDArray[np.int32]:
    """Return the instance map of discs (x, y, radius); later ones lie on top."""
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for k, (cx, cy, radius) in enumerate(discs, 1):
        labels[np.hypot(x - cx, y - cy) <= radius] = k
    return labels


def disc_batch(side: int = 64) -> tuple[Tensor, Targets]:
    """Return two pictures (2, 3, side, side) of dark discs, some touching, and their targets."""
    both = (
        disc_labels(side, (15, 15, 8), (32, 15, 8), (45, 44, 9), (12, 48, 7)),
        disc_labels(side, (40, 20, 9), (40, 39, 9), (15, 40, 8), (10, 10, 6)),
    )
    pictures = [np.where(labels[None] > 0, -0.5, 0.7).repeat(3, 0) for labels in both]
    x = torch.from_numpy(np.stack(pictures)).float()
    x += 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return x, targets_of([shown(labels) for labels in both])


def shown(labels: NDArray[np.int32], merged: bool = False) -> Sample:
    """Return the sample of a blank picture with these labels."""
    return Sample(np.zeros((*labels.shape, 3), np.uint8), labels, np.zeros(labels.shape, np.int8), merged)


class Patches:
    """A corpus in memory: *count* random pictures of 512 px with soft structure, and what else a corpus offers."""

    path = "corpus in memory"
    fingerprint = "0" * 64

    def __init__(self, count: int) -> None:
        coarse = np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), np.uint8)
        self.pixels = coarse.repeat(32, 1).repeat(32, 2)
        self.kept: dict[str, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> NDArray[np.uint8]:
        return self.pixels[index]

    def features(self, name: str) -> NDArray[np.float32] | None:
        return self.kept.get(name)

    def add_features(self, name: str, array: NDArray[np.float32]) -> None:
        self.kept[name] = array


def encoder_shapes(
    swiglu: bool = False,
    registers: int = 0,
    class_position: bool = True,
    width: int = 64,
    patch: int = 8,
    depth: int = 2,
    side: int = 32,
    hidden: int = 0,
) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a ViT's weights as timm saves them."""
    hidden = hidden or 4 * width
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, (side // patch) ** 2 + class_position, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    shapes |= {"reg_token": (1, registers, width)} if registers else {}
    linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.fc1": (hidden, width)}
    linears |= {"mlp.fc2": (width, hidden // (1 + swiglu))}
    for k in range(depth):
        shapes |= {f"blocks.{k}.{name}.weight": shape for name, shape in linears.items()}
        shapes |= {f"blocks.{k}.{name}.bias": shape[:1] for name, shape in linears.items()}
        shapes |= {f"blocks.{k}.{name}": (width,) for name in ("norm1.weight", "norm1.bias", "norm2.weight")}
        shapes |= {f"blocks.{k}.{name}": (width,) for name in ("norm2.bias", "ls1.gamma", "ls2.gamma")}
    return shapes


def save_encoder(folder: Path, seed: int = 0) -> Path:
    """Write the weights of a small ViT to *folder* and return it."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)
    tensors = {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in encoder_shapes().items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    return folder
