"""Small networks in files, as a user would bring them: their answers are known, or random and local."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DARK = 0.62
"""Red below this, averaged over 5 x 5 px, is a nucleus to :class:`Dark`."""


class Dark(nn.Module):
    """Says how much darker than :data:`DARK` the red of each pixel's surroundings is, as a logit."""

    def __init__(self) -> None:
        super().__init__()
        self.level = DARK

    def forward(self, x: Tensor) -> Tensor:  # (n, 3, h, w) -> (n, 1, h, w)
        return (self.level - F.avg_pool2d(x[:, :1], 5, 1, 2)) * 200


class Hover(nn.Module):
    """Random and local, with HoVer-Net's outputs: two steps of pooling, and skips; the dark is where nuclei are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.out = nn.Conv2d(6 + 8, 2 + 3, 3, padding=1)
        self.dark = Dark()
        self.kinds = nn.Conv2d(1, 3, 1)
        with torch.no_grad():  # the darkest are of the first type
            self.kinds.weight.copy_(torch.tensor([0.0, 0.1, 0.0]).view(-1, 1, 1, 1))
            self.kinds.bias.copy_(torch.tensor([-2.0, -3.0, 0.0]))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = F.relu(self.first(x))
        coarse = F.relu(self.second(F.max_pool2d(fine, 4)))
        found = self.out(torch.cat([fine, F.interpolate(coarse, scale_factor=4.0, mode="bilinear")], 1))
        dark = self.dark(x)
        return {
            "np": torch.cat([-dark, dark], 1),
            "hv": torch.tanh(3 * found[:, :2]),
            "tp": found[:, 2:] + self.kinds(dark),
        }


class Labels(nn.Module):
    """Returns squares of 16 px that are dark, numbered: a network with its own post-processing."""

    def forward(self, x: Tensor) -> Tensor:  # (n, 3, h, w) -> (n, 1, h, w)
        side = x.shape[-1] // 16
        numbers = torch.arange(1, side * side + 1, dtype=torch.float32, device=x.device).view(1, 1, side, side)
        dark = (F.avg_pool2d(x[:, :1], 16) < 0.8).float() * numbers
        return F.interpolate(dark, scale_factor=16.0, mode="nearest")


class Both(nn.Module):
    """Called as InstanSeg's files are, and returns what they do: label images of nuclei and of cells, as float32.

    Nuclei are the connected pixels that :class:`Dark` marks, numbered with gaps; cells reach 2 px further.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cells_and_nuclei, self.pixel_size = True, 0.5
        self.level = DARK

    def forward(self, x: Tensor, args: dict[str, Tensor] | None = None) -> Tensor:  # (1, 3, h, w) -> (1, 1 or 2, h, w)
        level, wanted = self.level, torch.tensor([1, 1])
        if args is not None:
            level = float(args.get("seed_threshold", torch.tensor(level)).item())
            wanted = args.get("target_segmentation", wanted)
        dark = (F.avg_pool2d(x[:, :1], 5, 1, 2) <= level).float()
        labels = torch.arange(1, dark.numel() + 1, dtype=torch.float32, device=x.device).view(dark.shape) * dark
        for _ in range(64):
            labels = F.max_pool2d(labels, 3, 1, 1) * dark
        cells = torch.where(labels > 0, labels, F.max_pool2d(labels, 5, 1, 2))
        return torch.cat([labels, cells], 1)[:, wanted > 0]


def script(network: nn.Module, path: Path, said: str) -> str:
    """Write *network* as TorchScript, and *said* beside it; return it as ``--model`` takes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch speaks of the age of TorchScript
        cast(Any, torch.jit.script(network.eval())).save(str(path))
    path.with_suffix(".toml").write_text(said)
    return f"torchscript:{path}"


def onnx(network: nn.Module, path: Path, said: str, names: list[str], batch: bool = True) -> str:
    """Write *network* as ONNX, for any number of tiles of 256 px at a time or for one; return it as ``--model``."""
    axes = {name: {0: "n", 2: "h", 3: "w"} for name in ["x", *names]} if batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has a newer exporter, which needs a package more
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, 256, 256),),
            str(path),
            dynamo=False,
            input_names=["x"],
            output_names=names,
            dynamic_axes=axes,
        )
    path.with_suffix(".toml").write_text(said)
    return f"onnx:{path}"
