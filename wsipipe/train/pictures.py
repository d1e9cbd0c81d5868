"""Pictures of what a backbone reconstructs: original, and at fixed timesteps the masked input and the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw
from torch import Tensor, nn

from wsipipe.artifacts import atomic_path
from wsipipe.models.backbone import TILE
from wsipipe.models.space import space_of
from wsipipe.models.vae import VAE
from wsipipe.train.diffusion import Image, hide, mask, masked_count, normalise

TIMES = 100, 300, 500, 700, 900
"""Timesteps shown."""
GAP, HEAD = 4, 20
"""White between tiles and height of the line of titles, in pixels."""


@torch.no_grad()
def reconstruct(network: nn.Module, images: Tensor, timestep: int, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return masked inputs and reconstructions of *images*, under masks that are always the same.

    Parameters
    ----------
    images : Tensor uint8 (B, 256, 256, 3)

    Returns
    -------
    two Tensors uint8 (B, 256, 256, 3), on the CPU
    """
    device = next(network.parameters()).device
    space = space_of(network)
    rngs = [np.random.default_rng((timestep, k)) for k in range(len(images))]
    hidden = torch.from_numpy(np.stack([mask(timestep, rng, space.cells) for rng in rngs])).to(device)
    masked = hide(space.encode(normalise(images.to(device))), hidden)
    t = torch.full((len(images),), timestep, device=device)
    found = network(masked, t, None if z is None else z.to(device))
    return _pixels(space.decode(masked)), _pixels(space.decode(found))


def _pixels(x: Tensor) -> Tensor:
    """Return images (B, 3, H, W) in [-1, 1] as uint8 (B, H, W, 3)."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()


def write_reconstructions(
    path: Path,
    network: nn.Module,
    images: Image,
    features: NDArray[np.float32] | None = None,
    times: Sequence[int] = TIMES,
) -> None:
    """Write a PNG with a row per image: the original, then masked input and reconstruction at each of *times*.

    Parameters
    ----------
    images : uint8 (B, 256, 256, 3)
    features : float32 (B, D), optional
        For a conditioned network.
    """
    z = None if features is None else torch.from_numpy(features)
    columns: list[tuple[str, Image]] = [("original", images)]
    for time in times:
        masked, result = reconstruct(network, torch.from_numpy(images), time, z)
        share = masked_count(time) / masked_count(1001)
        columns += [(f"t = {time}: {share:.0%} masked", masked.numpy()), ("reconstruction", result.numpy())]
    with atomic_path(path) as temporary:
        Pillow.fromarray(_sheet(columns)).save(temporary, format="PNG", compress_level=6)


@torch.no_grad()
def write_decoded(path: Path, network: VAE, images: Image) -> None:
    """Write a PNG with a row per image: the original, then what an autoencoder makes of it.

    Parameters
    ----------
    images : uint8 (B, 256, 256, 3)
    """
    device = next(network.parameters()).device
    found = _pixels(network(normalise(torch.from_numpy(images).to(device)))).numpy()
    with atomic_path(path) as temporary:
        sheet = _sheet([("original", images), ("decoded", found)])
        Pillow.fromarray(sheet).save(temporary, format="PNG", compress_level=6)


def _sheet(columns: Sequence[tuple[str, Image]]) -> NDArray[np.uint8]:
    rows = len(columns[0][1])
    sheet = np.full((HEAD + rows * (TILE + GAP), len(columns) * (TILE + GAP) - GAP, 3), 255, np.uint8)
    for c, (_, images) in enumerate(columns):
        for r, image in enumerate(images):
            y, x = HEAD + r * (TILE + GAP), c * (TILE + GAP)
            sheet[y : y + TILE, x : x + TILE] = image
    picture = Pillow.fromarray(sheet)
    draw = ImageDraw.Draw(picture)
    for c, (title, _) in enumerate(columns):
        draw.text((c * (TILE + GAP) + 4, 4), title, fill=(0, 0, 0))
    return np.asarray(picture)
