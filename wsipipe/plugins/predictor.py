"""A plug-in where one of wsipipe's own networks would stand: the same members, maps of objects in place of maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsipipe.errors import ModelError
from wsipipe.formats.colours import class_colours
from wsipipe.infer.embed import Elsewhere
from wsipipe.infer.predict import Recipe
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.device import BATCH, SmallerBatch, memory_watched
from wsipipe.models.heads import HeadConfig
from wsipipe.plugins.levels import WHOLE, Levels
from wsipipe.plugins.maps import MOST_OBJECTS, names_of, packed
from wsipipe.plugins.protocol import Objects, Segmenter
from wsipipe.raster.tiling import TILE

KIND = "plug-in"


class PluginPredictor:
    """A plug-in on a device, with one fixed batch shape; as :class:`wsipipe.infer.predict.Predictor`.

    Parameters
    ----------
    name : str
        Of the plug-in and its weights, as in results.
    segmenter : Segmenter
    device : torch.device
    batch : int
        Tiles at a time; 0 takes what has as many pixels as the device's default.

    Attributes
    ----------
    looks : Looks
    """

    def __init__(self, name: str, segmenter: Segmenter, device: torch.device, batch: int = 0) -> None:
        self.segmenter, self.device = segmenter, device
        about = segmenter.about
        self.looks, self.types = about.looks, about.types
        self.names = names_of(about.types)
        self.batch = batch or max(1, BATCH[device.type] * TILE**2 // about.looks.tile**2)
        version = torch.__version__.partition("+")[0]
        self.recipe = Recipe(device.type, "float32", about.version, version, self.batch)
        self.card = ModelCard(
            name,
            Elsewhere(1),
            HeadConfig(KIND, (), about.types),
            about.looks.mpp,
            replace(about.rules, threshold=0.5),
            about.licence,
            class_colours(about.types),
        )

    def maps(self, tiles: NDArray[np.uint8], levels: Levels = WHOLE) -> NDArray[np.uint8]:
        """Return the maps of the objects of *tiles* (n, side, side, 3): uint8 (n, K, side, side).

        Raises
        ------
        SmallerBatch, ModelError
        """
        parts = [tiles[k : k + self.batch] for k in range(0, len(tiles), self.batch)]
        return np.concatenate([self.begin(part, levels)() for part in parts])

    def begin(self, tiles: NDArray[np.uint8], levels: Levels = WHOLE) -> Callable[[], NDArray[np.uint8]]:
        """Find the objects of one batch; return what gives their maps. Both may raise SmallerBatch and ModelError."""
        fixed = np.zeros((self.batch, *tiles.shape[1:]), np.uint8)
        fixed[: len(tiles)] = tiles
        with memory_watched(self.device, self.batch):
            found = self.segmenter.objects(fixed, levels)
        self._check(len(found) == self.batch, f"objects of {len(found)} tiles for {self.batch}")
        maps = np.stack([self._packed(one, tiles.shape[1]) for one in found[: len(tiles)]])
        return lambda: maps

    def _packed(self, found: Objects, side: int) -> NDArray[np.uint8]:
        labels = np.asarray(found.labels)
        integers = labels.shape == (side, side) and np.issubdtype(labels.dtype, np.integer)
        self._check(integers, f"labels that are {labels.dtype} {labels.shape}, not whole numbers ({side}, {side})")
        count = int(labels.max(initial=0))
        low = int(labels.min(initial=0))
        self._check(low >= 0 and count <= MOST_OBJECTS, f"labels from {low} to {count}, not 0 to {MOST_OBJECTS}")
        given = np.ones(count) if found.probability is None else np.asarray(found.probability)
        types = np.zeros((count, 0)) if found.types is None else np.asarray(found.types)
        self._check(given.shape == (count,), f"{len(given)} probabilities for {count} objects")
        self._check(types.shape == (count, len(self.types)), f"types {types.shape} of {count} objects")
        good = all(bool(((values >= 0) & (values <= 1)).all()) for values in (given, types))
        self._check(good, "probabilities that are not numbers from 0 to 1")
        return packed(labels, given, types)

    def _check(self, good: bool, what: str) -> None:
        """Refuse what a plug-in must not return."""
        if not good:
            raise ModelError(f"the plug-in {self.card.name} returned {what}; mend it (see wsipipe.plugins.protocol)")

    def probe(self) -> None:
        """Look at one batch of nothing, so that lack of memory shows before any work is done.

        Raises
        ------
        SmallerBatch
        """
        side = self.looks.tile
        self.maps(np.zeros((1, side, side, 3), np.uint8))


def fitting(make: Callable[[int], PluginPredictor], batch: int, say: Callable[..., Any]) -> PluginPredictor:
    """Return what *make* makes of the largest batch, *batch* or smaller, that fits the device's memory."""
    while True:
        predictor = make(batch)
        try:
            if batch or predictor.device.type != "cpu":  # a CPU's default batch is small
                predictor.probe()
            return predictor
        except SmallerBatch as error:
            say("%s", error)
            batch = error.batch
