"""``onnx:FILE``: any network as ONNX, and a TOML file beside it that says how to read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsipipe.errors import MissingDependency, NotAModel, SettingsError
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
    about = said.about(f"onnxruntime {onnxruntime.__version__}", Looks(mpp=0.5))
    _check_input(weights, session.get_inputs(), about.looks.tile)
    return Onnx(session, about, said)


def _check_input(weights: Path, inputs: Any, tile: int) -> None:
    """Refuse a network that does not take tiles of this side; sizes that it leaves open have names, or are None."""
    shapes = [(given.type, tuple(given.shape)) for given in inputs]
    kind, shape = shapes[0]
    sizes = zip(shape[1:], (3, tile, tile), strict=False)
    fits = len(shape) == 4 and all(size == wanted or not isinstance(size, int) for size, wanted in sizes)
    if len(shapes) != 1 or kind != "tensor(float)" or not fits:
        taken = " and ".join(f"{kind} ({', '.join(map(str, shape))})" for kind, shape in shapes)
        raise NotAModel(
            f"{weights}: takes {taken.replace('tensor(float)', 'float32')}; expected float32 (n, 3, {tile}, {tile}): "
            f"give its tile in {weights.with_suffix('.toml').name}, or export it for RGB of any number of tiles"
        )
