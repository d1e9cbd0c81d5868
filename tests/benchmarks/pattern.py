"""A slide of any size that is drawn in seconds, and a network that takes no time: all else is wsipipe's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.artifacts import atomic_write
from wsipipe.phantom.slide import BRIGHT, aperio_description
from wsipipe.phantom.truth import PhantomTruth
from wsipipe.raster.tiling import TILE
from wsipipe.settings import PhantomSettings
from wsipipe.slide.tiff_pyramid import Codec, PyramidWriter, level_sizes
from wsipipe.units import Box

MPP = 0.5
REPEAT = 1024
"""Side of the picture of tissue that is repeated."""
PERIOD = 192
"""Maps repeat with the distance of two tiles, so that every tile has the same maps and neighbours agree."""


def write_pattern_slide(path: Path, side: int, pieces: list[Box]) -> None:
    """Write a slide of *side* px at 0.5 µm/px whose tissue, one picture over and over, fills the boxes *pieces*."""
    about = PhantomSettings(width=side, height=side, mpp=MPP, tissue=1.0, nuclei_per_mm2=4800)
    drawn = PhantomTruth(PhantomSettings(width=REPEAT, height=REPEAT, mpp=MPP, tissue=1.0, nuclei_per_mm2=4800))
    picture = np.tile(drawn.picture((0, 0, REPEAT, REPEAT)), (2, 2, 1))

    def tile(box: Box) -> NDArray[np.uint8] | None:
        x0, y0, x1, y1 = box
        if not any(x0 >= p[0] and y0 >= p[1] and x1 <= p[2] and y1 <= p[3] for p in pieces):
            return None
        x, y = x0 % REPEAT, y0 % REPEAT
        return picture[y : y + y1 - y0, x : x + x1 - x0]

    with atomic_write(path) as file:
        writer = PyramidWriter(file, level_sizes((side, side), 4), 4, Codec(87), BRIGHT)
        writer.draw(tile)
        writer.finish(aperio_description(about), None, subfile=0, overview=np.full((64, 64, 3), 245, np.uint8))


def pattern_maps(nuclei: int = 7) -> NDArray[np.uint8]:
    """Return foreground and marker (2, 256, 256): *nuclei* squared in each 192 px (7: 5,317/mm2), some touch."""
    rng = np.random.default_rng(0)
    step = PERIOD / nuclei
    whole = np.zeros((2, 3 * PERIOD, 3 * PERIOD), np.float32)
    for x, y in np.mgrid[0.5:nuclei, 0.5:nuclei].reshape(2, -1).T:
        cx, cy = (x + rng.uniform(-0.2, 0.2)) * step, (y + rng.uniform(-0.2, 0.2)) * step
        axes, angle = rng.uniform(6, 12, 2), rng.uniform(0, 180)
        for k, part in enumerate((1.0, 0.6)):
            for dx, dy in np.ndindex(3, 3):
                centre = (cx + dx * PERIOD, cy + dy * PERIOD)
                cv2.ellipse(whole[k], (centre, tuple(2 * part * axes), angle), 1.0, -1)
    soft = [cv2.GaussianBlur(image, (0, 0), 1.0) * 255 for image in whole]
    maps = np.clip(np.round(soft), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(maps[:, PERIOD : PERIOD + TILE, PERIOD : PERIOD + TILE])


class PatternPredictor:
    """Gives every tile the same maps.

    Parameters
    ----------
    network : Predictor
        Stands in for it: its names and recipe.
    every : int
        Every so many batches the network forwards one too, whose maps are thrown away: it takes its memory.
    nuclei : int
        See :func:`pattern_maps`.
    """

    def __init__(self, network: Any, every: int = 0, nuclei: int = 7) -> None:
        self.network, self.every = network, every
        self.names, self.recipe, self.batch = network.names, network.recipe, network.batch
        maps = pattern_maps(nuclei)
        types = [maps[0] // (k + 2) for k in range(len(network.names) - len(maps))]
        self._maps = np.stack([*maps, *types])
        self._calls = 0

    def begin(self, tiles: NDArray[np.uint8]) -> Callable[[], NDArray[np.uint8]]:
        """Return what gives the maps of *tiles*."""
        maps = self.maps(tiles)
        return lambda: maps

    def maps(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the maps (n, K, 256, 256) of *tiles*."""
        if self.every and self._calls % self.every == 0:
            self.network.maps(tiles)
        self._calls += 1
        return np.broadcast_to(self._maps, (len(tiles), *self._maps.shape))
