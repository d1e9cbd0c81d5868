"""``torchscript:FILE``: any network that torch wrote down with its code, and a TOML file that says how to read it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsipipe.models.device import out_of_memory
from wsipipe.models.threads import denormals_flushed
from wsipipe.plugins.levels import Levels
from wsipipe.plugins.outputs import Reading
from wsipipe.plugins.protocol import About, Looks, Objects
from wsipipe.plugins.said import Said, refuse


class TorchScript:
    """A network of a TorchScript file on a device, in fp32."""

    def __init__(self, network: Any, device: str, about: About, said: Said) -> None:
        self.network, self.device = network, torch.device(device)
        self._about, self.reading = about, Reading(said, about)

    @property
    def about(self) -> About:
        """What it says of itself."""
        return self._about

    def objects(self, tiles: NDArray[np.uint8], levels: Levels) -> list[Objects]:
        """Return the objects of each tile; see :class:`wsipipe.plugins.protocol.Segmenter`."""
        pixels = torch.from_numpy(self.reading.pixels(tiles, levels)).to(self.device)
        with torch.inference_mode(), denormals_flushed():
            return self.reading.objects(arrays(self.network(pixels)), len(tiles))


def open_torchscript(weights: Path, device: str, said: Said) -> TorchScript:
    """Return the network in the file *weights*.

    Raises
    ------
    NotAModel
    """
    said.need("mpp")
    network = load_script(weights, device)
    about = said.about(f"torchscript {torch.__version__.partition('+')[0]}", Looks(mpp=0.5))
    return TorchScript(network, device, about, said)


def load_script(weights: Path, device: str) -> Any:
    """Return the TorchScript network in a file, for use on *device*.

    Raises
    ------
    NotAModel
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own age
            network = torch.jit.load(str(weights), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        raise refuse(weights, error, "a file that torch.jit.save wrote") from error
    return network.eval()


def arrays(returned: Any) -> Any:
    """Return tensors, in whatever they come, as arrays."""
    if isinstance(returned, Tensor):
        return returned.detach().float().cpu().numpy()
    if isinstance(returned, dict):
        return {name: arrays(value) for name, value in returned.items()}
    return [arrays(value) for value in returned] if isinstance(returned, Sequence) else returned
