"""A small annotated picture whose nuclei are boxes, so that every form can state it to the pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wsipipe.errors import DatasetError
from wsipipe.labels import Annotated, DatasetSpec, read_set

WIDTH, HEIGHT = 50, 40
BOXES = {1: (3, 2, 9, 8), 2: (9, 2, 20, 12), 3: (30, 20, 50, 40), 4: (0, 30, 4, 33)}
"""x0, y0, x1, y1 of each nucleus; 1 and 2 touch, 3 has a hole and reaches the edge."""
HOLE = (35, 25, 40, 31)
KINDS = {1: "Neoplastic", 2: "Dead", 3: "Neoplastic", 4: "Epithelial"}


def instance_map() -> NDArray[np.int32]:
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    for number, (x0, y0, x1, y1) in BOXES.items():
        labels[y0:y1, x0:x1] = number
    labels[HOLE[1] : HOLE[3], HOLE[0] : HOLE[2]] = 0
    return labels


def picture(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def ring(box: tuple[int, int, int, int]) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = box
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def save(path: Path, pixels: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def by_number(item: Annotated) -> dict[tuple[int, ...], str]:
    """Return the type ("" without one) of each instance by the pixels it covers."""
    types = item.types or ("",) * int(item.labels.max(initial=0))
    return {tuple(np.flatnonzero(item.labels == k).tolist()): kind for k, kind in enumerate(types, 1)}


def expected(kinds: dict[int, str] | None = None) -> dict[tuple[int, ...], str]:
    """Return what :func:`by_number` gives for the scene."""
    labels, kinds = instance_map(), KINDS if kinds is None else kinds
    return {tuple(np.flatnonzero(labels == k).tolist()): kinds.get(k, "") for k in BOXES}


def only(path: Path, **changes: object) -> Annotated:
    """Return the one image of a set."""
    (item,) = read_set(DatasetSpec(str(path), **changes), "train")  # type: ignore[arg-type]
    assert item.labels.dtype == np.int32 and item.image.dtype == np.uint8
    return item


def refusal(path: Path, **changes: object) -> str:
    """Return the one line with which a set is refused."""
    with pytest.raises(DatasetError) as error:
        read_set(DatasetSpec(str(path), **changes), "train")  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)
