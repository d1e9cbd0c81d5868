"""The pixels of tiles as a network sees them, read ahead of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsipipe.geometry import grow
from wsipipe.raster import Raster
from wsipipe.stain import Change, normalise
from wsipipe.units import Box


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels of tiles as the network sees them.

    Attributes
    ----------
    boxes : int64 (n, 4)
        In grid pixels.
    margin : int
        Pixels around a tile that are read too.
    change : Change
        Of the slide's colours.
    """

    raster: Raster
    boxes: NDArray[np.int64]
    margin: int = 0
    change: Change = ()

    def batches(self, start: int, size: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the pixels (k, 256 + 2 margin, ..., 3) of tiles from *start* on; a batch is read while one is used."""
        parts: list[list[Box]] = [self.boxes[k : k + size].tolist() for k in range(start, len(self.boxes), size)]
        with ThreadPoolExecutor(1) as ahead:
            pending = [ahead.submit(self._read, part) for part in parts[:2]]
            for k in range(len(parts)):
                pixels = pending.pop(0).result()
                if k + 2 < len(parts):
                    pending.append(ahead.submit(self._read, parts[k + 2]))
                yield pixels

    def _read(self, part: list[Box]) -> NDArray[np.uint8]:
        return normalise(np.stack([self.raster.read(grow(box, self.margin)) for box in part]), self.change)
