"""A worker that replays maps in place of the network, so that everything else can be timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.schedule.work import Worker
from wsipipe.slide.phantom import PhantomTruth
from wsipipe.tiling import TILE


class NoNetwork:
    """What a worker asks of a predictor, without one."""

    batch = 16


class ReplayWorker(Worker):
    """Gives each tile the maps of the phantom's true nuclei (of a slide drawn at the working resolution)."""

    def __init__(self, folder: Path, truth: PhantomTruth) -> None:
        super().__init__(folder, NoNetwork())
        self.truth = truth
        self.kept: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def remember(self) -> None:
        """Draw the maps of all selected tiles beforehand."""
        for j, i in zip(*np.nonzero(self.plan.selected), strict=True):
            self.kept[int(i), int(j)] = true_maps(self.truth.instance_map(self.plan.tiles.box(int(i), int(j))))

    def maps_of(self, batch: list[tuple[int, int]], pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the remembered maps."""
        return np.stack([self.kept[tile] for tile in batch])


def true_maps(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return foreground and marker maps (2, 256, 256) of an instance map, soft at the edges as a network's are."""
    labels = np.pad(labels, ((0, TILE - labels.shape[0]), (0, TILE - labels.shape[1])))
    inside = (labels > 0).astype(np.uint8)
    edge = cv2.morphologyEx(labels.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    core = inside & ~edge
    soft: Any = [cv2.GaussianBlur(m.astype(np.float32) * 255, (0, 0), 0.7) for m in (inside, core)]
    return np.stack(soft).round().astype(np.uint8)
