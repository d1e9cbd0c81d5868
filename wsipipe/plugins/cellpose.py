"""``cellpose:FILE``: Cellpose by its own package: its network, its flows, its masks.

Stringer et al., "Cellpose: a generalist algorithm for cellular segmentation", 2021, and its later networks.
"""

from __future__ import annotations

import importlib.metadata
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from wsipipe.errors import FAILURES, MissingDependency
from wsipipe.plugins.levels import Levels, scaled
from wsipipe.plugins.protocol import About, Looks, Objects
from wsipipe.plugins.said import Said, refuse

OPTIONS: dict[str, Any] = {
    "diameter": None,
    "flow_threshold": 0.4,
    "cellprob_threshold": 0.0,
    "min_size": 15,
    "niter": None,
    "batch_size": 8,
    "tile_overlap": 0.1,
}
"""As its ``eval`` takes them."""


class Cellpose:
    """Cellpose on a device, in fp32."""

    def __init__(self, model: Any, about: About, asked: dict[str, Any]) -> None:
        self.model, self._about, self.asked = model, about, asked

    @property
    def about(self) -> About:
        """What it says of itself."""
        return self._about

    def objects(self, tiles: NDArray[np.uint8], levels: Levels) -> list[Objects]:
        """Return the objects of each tile; see :class:`wsipipe.plugins.protocol.Segmenter`."""
        return [self._found(scaled(tile, levels)) for tile in tiles]

    def _found(self, pixels: NDArray[np.float32]) -> Objects:
        masks, flows, _ = self.model.eval(pixels, channel_axis=-1, normalize=False, **self.asked)
        numbers, inverse = np.unique(np.asarray(masks), return_inverse=True)
        labels = (inverse.reshape(masks.shape) + (numbers[0] != 0)).astype(np.int32)
        likely = expit(np.asarray(flows[2], np.float64))
        pixels_of = np.maximum(np.bincount(labels.ravel()), 1)
        return Objects(labels, (np.bincount(labels.ravel(), weights=likely.ravel()) / pixels_of)[1:])


def open_cellpose(weights: Path, device: str, said: Said) -> Cellpose:
    """Return the network in the file *weights*.

    Raises
    ------
    NotAModel, MissingDependency
    """
    try:
        from cellpose.models import CellposeModel
    except ImportError as error:
        raise MissingDependency.of("cellpose", "cellpose", f"--model cellpose:{weights}") from error
    logging.getLogger("cellpose").setLevel(logging.WARNING)
    chosen = torch.device(device)
    try:
        model = CellposeModel(
            gpu=chosen.type != "cpu", device=chosen, pretrained_model=str(weights), use_bfloat16=False
        )
    except FAILURES as error:
        raise refuse(weights, error, "weights of Cellpose 4") from error
    version = f"cellpose {importlib.metadata.version('cellpose')}"
    about = said.about(version, Looks(mpp=0.25, context=128, percentiles=(1.0, 99.0)))
    return Cellpose(model, about, said.options(OPTIONS))
