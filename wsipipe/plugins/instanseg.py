"""``instanseg:FILE.pt``: InstanSeg, by the TorchScript file that it is published as, post-processing inside.

Goldsborough et al., "InstanSeg: an embedding-based instance segmentation algorithm", 2024. Its package is not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsipipe.errors import NotAModel
from wsipipe.models.threads import denormals_flushed
from wsipipe.plugins.levels import Levels, scaled
from wsipipe.plugins.outputs import label_image
from wsipipe.plugins.protocol import About, Looks, Objects
from wsipipe.plugins.said import Said
from wsipipe.plugins.torchscript import arrays, load_script

OPTIONS: dict[str, Any] = {"target": "nuclei", "settings": {}}
"""``target``: nuclei or cells, of networks that find both; ``settings``: numbers that its network takes by name."""
MPP = 0.5
"""Of its models for brightfield, where the file does not say."""


class InstanSeg:
    """InstanSeg on a device."""

    def __init__(self, network: Any, device: str, about: About, target: str, settings: dict[str, float]) -> None:
        self.network, self.device, self._about = network, torch.device(device), about
        self.both = bool(getattr(network, "cells_and_nuclei", False))
        self.target = torch.tensor([target == "nuclei", target == "cells"]).long()
        self.settings = {name: torch.tensor(float(value)) for name, value in settings.items()}

    @property
    def about(self) -> About:
        """What it says of itself."""
        return self._about

    def objects(self, tiles: NDArray[np.uint8], levels: Levels) -> list[Objects]:
        """Return the objects of each tile; see :class:`wsipipe.plugins.protocol.Segmenter`."""
        found = []
        for tile in tiles:  # it loops over its batch itself
            pixels = torch.from_numpy(scaled(tile, levels).transpose(2, 0, 1)[None].copy()).to(self.device)
            args = self.settings | ({"target_segmentation": self.target} if self.both else {})
            with torch.inference_mode(), denormals_flushed():
                labels = arrays(self.network(pixels, args or None))
            found.append(Objects(label_image(labels[0])))
        return found


def open_instanseg(weights: Path, device: str, said: Said) -> InstanSeg:
    """Return the network in the file *weights*.

    Raises
    ------
    NotAModel
    """
    asked = said.options(OPTIONS)
    if asked["target"] not in ("nuclei", "cells"):
        raise NotAModel(f"{said.path}: its option target is {asked['target']!r}; expected nuclei or cells")
    network = load_script(weights, device)
    mpp = float(getattr(network, "pixel_size", 0) or MPP)
    about = said.about(
        f"instanseg, torch {torch.__version__.partition('+')[0]}",
        Looks(mpp=mpp, tile=512, context=80, percentiles=(0.1, 99.9)),
    )
    return InstanSeg(network, device, about, asked["target"], asked["settings"])
