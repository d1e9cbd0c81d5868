"""The masked-diffusion objective: views, timesteps, masks and the loss (CMD paper, section 3.3 and appendix A)."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wsipipe.errors import DatasetError
from wsipipe.models.backbone import TILE
from wsipipe.models.space import Pixels

PATCH = 512
"""Side of a corpus patch, in pixels."""
TIMESTEPS = 1000
CELLS = Pixels.cells
"""Squares along a side of the input: N = 32 x 32."""
WINDOW, SIGMA = 11, 1.5
"""Gaussian window of SSIM's local means, in pixels."""

Image = NDArray[np.uint8]


class Sample(NamedTuple):
    """One training input before normalisation.

    Attributes
    ----------
    image : uint8 (256, 256, 3)
    timestep : int
        1 to 1000.
    hidden : bool (32, 32)
        Masked squares; fewer for latents.
    """

    image: Image
    timestep: int
    hidden: NDArray[np.bool_]


def draw(patch: Image, rng: np.random.Generator, crop_share: float = 0.8, cells: int = CELLS) -> Sample:
    """Return a random view of *patch* (512, 512, 3) with a random timestep and mask of *cells* x *cells* squares.

    Raises
    ------
    DatasetError
        When the patch is not uint8 (512, 512, 3).
    """
    image = view(patch, rng, crop_share)
    timestep = int(rng.integers(1, TIMESTEPS + 1))
    return Sample(image, timestep, mask(timestep, rng, cells))


def view(patch: Image, rng: np.random.Generator, crop_share: float = 0.8) -> Image:
    """Return a 256² input of a 512² *patch*: a random crop with probability *crop_share*, else the whole, resized."""
    if patch.shape != (PATCH, PATCH, 3) or patch.dtype != np.uint8:
        raise DatasetError(f"a corpus patch is {patch.dtype} {patch.shape}; expected uint8 (512, 512, 3)")
    if rng.random() < crop_share:
        x, y = rng.integers(0, PATCH - TILE + 1, 2)
        return patch[y : y + TILE, x : x + TILE]
    return np.asarray(cv2.resize(patch, (TILE, TILE), interpolation=cv2.INTER_AREA), np.uint8)


def masked_count(timestep: int, squares: int = CELLS**2) -> int:
    """Return floor(r N) for r = t / (T + 1), in integers (Eq. 1)."""
    return timestep * squares // (TIMESTEPS + 1)


def mask(timestep: int, rng: np.random.Generator, cells: int = CELLS) -> NDArray[np.bool_]:
    """Return which squares are masked at *timestep*: bool (*cells*, *cells*), exactly :func:`masked_count` of them."""
    hidden = np.zeros(cells**2, np.bool_)
    hidden[rng.permutation(cells**2)[: masked_count(timestep, cells**2)]] = True
    return hidden.reshape(cells, cells)


def normalise(images: Tensor) -> Tensor:
    """Return uint8 images (B, H, W, 3) as float32 (B, 3, H, W) in [-1, 1], channels-last in memory."""
    return images.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1


def hide(x: Tensor, hidden: Tensor) -> Tensor:
    """Return images or latents *x* (B, C, H, W) with the masked squares, bool (B, rows, columns), set to 0."""
    cell = x.shape[-1] // hidden.shape[-1]
    shown = ~hidden.repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    return x * shown[:, None]


def reconstruction_loss(output: Tensor, image: Tensor, l1: float = 1.0, ssim_weight: float = 0.0) -> Tensor:
    """Return l1 · mean |x0 - x̂0| + ssim_weight · (1 - SSIM) / 2 over the whole image (Eq. 9), in fp32.

    Parameters
    ----------
    output, image : Tensor (B, 3, H, W)
        Reconstruction and original in [-1, 1].
    """
    output, image = output.float(), image.float()
    loss = l1 * (output - image).abs().mean()
    return loss + ssim_weight * (1 - ssim(output, image)) / 2 if ssim_weight else loss


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean structural similarity (Eq. 8) of images (B, 3, H, W) in [-1, 1].

    Local means under a Gaussian window (11 px, sigma 1.5) wherever it lies within the image, each channel by itself;
    c1 = (0.01 · 2)², c2 = (0.03 · 2)².
    """
    mean_a, mean_b, aa, bb, ab = _local_means(torch.cat((a, b, a * a, b * b, a * b), dim=1)).chunk(5, dim=1)
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    same = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return (same / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def _local_means(x: Tensor) -> Tensor:
    """Return Gaussian means, (B, C, H, W) -> (B, C, H - 10, W - 10)."""
    offsets = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, WINDOW)
    rows = F.conv2d(x, weights, groups=x.shape[1])
    return F.conv2d(rows, weights.transpose(2, 3), groups=x.shape[1])
