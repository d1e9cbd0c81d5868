"""Pictures of drawn tissue, in which every field is different."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import Phantom
from wsipipe.slide import open_slide

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="session")
def tissue(phantom: Phantom) -> Pixels:
    """Return the drawn slide as one picture at 0.5 µm/px, uint8 (1024, 1536, 3)."""
    with open_slide(phantom.path) as slide:
        return slide.read_region(0, 0, 0, *slide.info.size)


@pytest.fixture(scope="session")
def pictures(tissue: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of six pictures of 256 px, of three patients, cut from where there is tissue."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, (x, y) in enumerate(dense(tissue, 256)[:6]):
        Image.fromarray(tissue[y : y + 256, x : x + 256]).save(folder / f"P{i // 2}_{i % 2}.png")
    return folder


def dense(tissue: Pixels, side: int) -> list[tuple[int, int]]:
    """Return corners x, y of disjoint squares, those with the most tissue first."""
    absorbing = 255 - tissue.mean(axis=2)
    corners = [(x, y) for y in range(0, 1024 - side + 1, side) for x in range(0, 1536 - side + 1, side)]
    return sorted(corners, key=lambda xy: -absorbing[xy[1] : xy[1] + side, xy[0] : xy[0] + side].mean())


def recompressed(pixels: Pixels, quality: int) -> Pixels:
    """Return *pixels* after a JPEG of that quality."""
    data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def scaled(pixels: Pixels, factor: float) -> Pixels:
    """Return *pixels* enlarged or reduced by *factor*."""
    how = cv2.INTER_LINEAR if factor > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=how), np.uint8)
