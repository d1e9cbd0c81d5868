"""What every slide reader looks like."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsipipe.units import Box, Pair, Size


class MppSource(StrEnum):
    """Where a slide's resolution comes from, best first."""

    OVERRIDE = "override"
    VENDOR = "vendor property"
    TIFF = "TIFF resolution"
    OBJECTIVE = "objective power"


@dataclass(frozen=True)
class Level:
    """One pyramid level: its size in its own pixels, and base pixels per level pixel in x and y."""

    size: Size
    downsample: Pair


@dataclass(frozen=True)
class SlideInfo:
    """Everything known about a slide without reading its pixels.

    Attributes
    ----------
    path : str
        Absolute path or URL (for an in-memory slide: its name).
    backend : str
        Name of the reader.
    levels : tuple of Level
        Finest first; level 0 has downsample (1, 1).
    mpp : (float, float) or None
        Microns per base pixel in x and y.
    mpp_source : MppSource or None
    bounds : Box or None
        Scanned area in base pixels, where the file states one.
    background : (int, int, int)
        Colour that transparent pixels are composited onto.
    objective : float or None
        Nominal magnification.
    vendor : str or None
    scenes : tuple of str
        Names of the scenes of a multi-scene file (one entry otherwise).
    scene : int
    planes : tuple of str
        Names of the focal planes of a stack, with their heights where these are known; empty for other slides.
    plane : int
        The one that is read.
    """

    path: str
    backend: str
    levels: tuple[Level, ...]
    mpp: Pair | None
    mpp_source: MppSource | None
    bounds: Box | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    objective: float | None = None
    vendor: str | None = None
    scenes: tuple[str, ...] = ("0",)
    scene: int = 0
    warnings: tuple[str, ...] = field(default=())
    planes: tuple[str, ...] = ()
    plane: int = 0

    @property
    def size(self) -> Size:
        """Width and height of level 0."""
        return self.levels[0].size


@runtime_checkable
class Slide(Protocol):
    """An open slide. Pickles by path and reopens. An object is for one thread at a time unless its reader says more."""

    @property
    def info(self) -> SlideInfo:
        """What the file says of itself."""

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return RGB pixels (height, width, 3) of *level*, with (x, y) the top-left corner in that level's pixels.

        Transparent pixels and those outside the slide have the background colour.

        Raises
        ------
        TileReadError
            When the region cannot be decoded. The reader has reopened the file: other regions still read.
        """

    def close(self) -> None:
        """Release the file; reading afterwards is an error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
