"""A slide made of arrays: the public fake for tests, and what picture files become."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import SettingsError, SlideError, TileReadError
from wsipipe.geometry import intersect, is_empty
from wsipipe.slide.protocol import MppSource, SlideInfo
from wsipipe.slide.reader import blank, clip_to_level, flatten, pyramid
from wsipipe.units import Box, Pair


class ArraySlide:
    """A slide whose pyramid is a list of arrays in memory.

    Parameters
    ----------
    levels : sequence of uint8 arrays (H, W, 3) or (H, W, 4)
        Finest first. A fourth channel is alpha.
    mpp : float, (float, float) or None
        Microns per base pixel.
    bounds : Box, optional
        Scanned area in base pixels, only reported.
    background : (int, int, int)
        Colour under transparent pixels and outside of the slide.
    bad : sequence of Box
        Areas in base pixels where every read fails, like damaged tiles.
    name : str
        Stands for the path.

    Notes
    -----
    Safe to share between threads. Pickles with its pixels.
    """

    def __init__(
        self,
        levels: Sequence[NDArray[np.uint8]],
        mpp: float | Pair | None = None,
        *,
        bounds: Box | None = None,
        background: tuple[int, int, int] = (255, 255, 255),
        objective: float | None = None,
        bad: Sequence[Box] = (),
        name: str = "memory",
    ) -> None:
        if not levels or any(a.dtype != np.uint8 or a.ndim != 3 or a.shape[2] not in (3, 4) for a in levels):
            raise SettingsError(f"{name}: a slide in memory needs uint8 levels of shape (H, W, 3) or (H, W, 4)")
        pair = (float(mpp), float(mpp)) if isinstance(mpp, (int, float)) else mpp
        self._levels, self._bad, self._closed = tuple(levels), tuple(bad), False
        self._info = SlideInfo(
            path=name,
            backend="memory",
            levels=pyramid([(a.shape[1], a.shape[0]) for a in levels]),
            mpp=pair,
            mpp_source=None if pair is None else MppSource.VENDOR,
            bounds=bounds,
            background=background,
            objective=objective,
        )

    @property
    def info(self) -> SlideInfo:
        """What the slide was made with."""
        return self._info

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return RGB pixels (height, width, 3) of *level*; see :class:`~wsipipe.slide.protocol.Slide`."""
        if self._closed:
            raise SlideError(f"{self._info.path} was closed; open it again to read")
        x0, y0, x1, y1 = inside = clip_to_level(self._info, level, x, y, width, height)
        out = blank(self._info, width, height)
        if is_empty(inside):
            return out
        self._fail_where_bad(level, inside)
        out[y0 - y : y1 - y, x0 - x : x1 - x] = flatten(self._levels[level][y0:y1, x0:x1], self._info.background)
        return out

    def _fail_where_bad(self, level: int, box: Box) -> None:
        dx, dy = self._info.levels[level].downsample
        base = int(box[0] * dx), int(box[1] * dy), int(np.ceil(box[2] * dx)), int(np.ceil(box[3] * dy))
        for bad in self._bad:
            if not is_empty(intersect(base, bad)):
                raise TileReadError(f"{self._info.path}: cannot decode level {level}, box {box}: damaged on purpose")

    def close(self) -> None:
        """Mark the slide closed; reading afterwards is an error."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
