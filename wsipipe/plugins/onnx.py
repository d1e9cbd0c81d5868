"""``onnx:FILE``: any network as ONNX, and a TOML file beside it that says how to read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsipipe.errors import MissingDependency, SettingsError
from wsipipe.plugins.levels import Levels
from wsipipe.plugins.outputs import Reading
from wsipipe.plugins.protocol import About, Looks, Objects
from wsipipe.plugins.said import Said, refuse

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}


class Onnx:
    """A network of an ONNX file."""

    def __init__(self, session: Any, about: About, said: Said) -> None:
        self.session, self._about, self.reading = session, about, Reading(said, about)
        (given, *_) = session.get_inputs()
        self.input, self.single = given.name, given.shape[0] == 1
        self.names = [output.name for output in session.get_outputs()]

    @property
    def about(self) -> About:
        """What it says of itself."""
        return self._about

    def objects(self, tiles: NDArray[np.uint8], levels: Levels) -> list[Objects]:
        """Return the objects of each tile; see :class:`wsipipe.plugins.protocol.Segmenter`."""
        pixels = self.reading.pixels(tiles, levels)
        parts = np.split(pixels, len(pixels)) if self.single else [pixels]
        returned = [self.session.run(None, {self.input: part}) for part in parts]
        together = [np.concatenate(same) for same in zip(*returned, strict=True)]
        named = dict(zip(self.names, together, strict=True))
        return self.reading.objects(named if {"np", "hv"} <= set(named) else together, len(tiles))


def open_onnx(weights: Path, device: str, said: Said) -> Onnx:
    """Return the network in the file *weights*.

    Raises
    ------
    NotAModel, MissingDependency
    SettingsError
        The installed onnxruntime cannot use *device*.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency.of("onnxruntime", "onnx", f"--model onnx:{weights}") from error
    said.need("mpp")
    provider = PROVIDERS[torch.device(device).type]
    if provider not in onnxruntime.get_available_providers():
        raise SettingsError(f"--device {device}: the installed onnxruntime has no {provider}; give --device cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(weights), options, providers=[provider])
    except Exception as error:  # its errors have no base of their own
        raise refuse(weights, error, "an ONNX network") from error
    return Onnx(session, said.about(f"onnxruntime {onnxruntime.__version__}", Looks(mpp=0.5)), said)
