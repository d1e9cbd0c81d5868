"""What the tests of the readers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from wsipipe.phantom.slide import PhantomSettings
from wsipipe.slide import MppSource, Slide, backend_versions

SETTINGS = PhantomSettings(width=1536, height=1024, seed=11, mpp=0.5, lossless=True, tissue=0.7)
TIFF_READERS = ["openslide", "tiffslide", "cucim"]


@dataclass(frozen=True)
class Case:
    """How to open a slide, and what must come out."""

    open: Callable[[], Slide]
    pixels: NDArray[np.uint8]
    level_sizes: tuple[tuple[int, int], ...]
    mpp: float | None
    source: MppSource | None
    file: bool = True


def need(backend: str) -> None:
    """Skip the test where the library of a reader is not installed."""
    if backend_versions().get(backend, "built in") is None:
        pytest.skip(f"the library of the {backend} reader is not installed")


def reduced(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.float64]:
    """Return the area mean of whole *factor* x *factor* squares."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    squares = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return squares.mean(axis=(1, 3))
