"""A further reader: slides that are one array in a NumPy file, at 0.5 µm/px."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsipipe.slide.protocol import MppSource, SlideInfo
from wsipipe.slide.reader import Reader, pyramid

Pixels = NDArray[np.uint8]


class ToyReader(Reader[Pixels]):
    name = "toy"

    def _open(self) -> Pixels:
        with open(self._path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    def _describe(self, handle: Pixels) -> SlideInfo:
        size = handle.shape[1], handle.shape[0]
        return SlideInfo(
            path=self._path,
            backend=self.name,
            vendor="toys",
            levels=pyramid([size]),
            mpp=(0.5, 0.5),
            mpp_source=MppSource.VENDOR,
        )

    def _read(self, handle: Pixels, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        return handle[y : y + height, x : x + width]

    def _release(self, handle: Pixels) -> None:
        pass
