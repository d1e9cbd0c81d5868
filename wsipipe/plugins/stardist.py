"""``stardist:FOLDER``: StarDist by its own package, with its own non-maximum suppression.

Schmidt et al., "Cell detection with star-convex polygons", 2018. The folder is one that StarDist saves: config.json,
thresholds.json and weights_*.h5.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import FAILURES, MissingDependency, NotAModel
from wsipipe.plugins.levels import Levels, scaled
from wsipipe.plugins.protocol import About, Looks, Objects
from wsipipe.plugins.said import Said, refuse

OPTIONS: dict[str, Any] = {"prob_thresh": None, "nms_thresh": None}
"""As its ``predict_instances`` takes them; by default what its folder says."""


class StarDist:
    """StarDist in 2D."""

    def __init__(self, model: Any, about: About, asked: dict[str, Any]) -> None:
        self.model, self._about, self.asked = model, about, asked

    @property
    def about(self) -> About:
        """What it says of itself."""
        return self._about

    def objects(self, tiles: NDArray[np.uint8], levels: Levels) -> list[Objects]:
        """Return the objects of each tile; see :class:`wsipipe.plugins.protocol.Segmenter`."""
        from tensorflow.errors import ResourceExhaustedError

        try:
            return [self._found(scaled(tile, levels)) for tile in tiles]
        except ResourceExhaustedError as error:
            raise RuntimeError(f"out of memory: {error}") from error

    def _found(self, pixels: NDArray[np.float32]) -> Objects:
        labels, found = self.model.predict_instances(pixels, show_tile_progress=False, **self.asked)
        count = int(labels.max(initial=0))
        probability = np.clip(np.asarray(found["prob"], np.float64), 0, 1)
        kinds = found.get("class_prob") if self._about.types else None
        types = np.zeros((len(probability), 0)) if kinds is None else np.clip(np.asarray(kinds)[:, 1:], 0, 1)
        numbers = np.flatnonzero(np.bincount(labels.ravel(), minlength=count + 1)[1:])  # the rest lies below others
        table = np.zeros(count + 1, np.int32)
        table[numbers + 1] = np.arange(1, len(numbers) + 1)
        return Objects(table[labels], probability[numbers], types[numbers])


def open_stardist(weights: Path, device: str, said: Said) -> StarDist:
    """Return the network in the folder *weights*.

    Raises
    ------
    NotAModel, MissingDependency
    """
    try:
        import tensorflow
        from stardist.models import StarDist2D
    except ImportError as error:
        raise MissingDependency.of("stardist", "stardist", f"--model stardist:{weights}") from error
    if not (weights / "config.json").is_file():
        raise NotAModel(f"{weights} is no folder of StarDist; expected config.json and weights_best.h5 in it")
    if device == "cpu":
        tensorflow.config.set_visible_devices([], "GPU")
    try:
        model = StarDist2D(None, name=weights.resolve().name, basedir=str(weights.resolve().parent))
    except FAILURES as error:
        raise refuse(weights, error, "a folder that StarDist saved") from error
    channels, classes = model.config.n_channel_in, getattr(model.config, "n_classes", None) or 0
    if channels != 3:
        raise NotAModel(f"{weights}: its network takes {channels} channels; expected one for RGB, such as for H&E")
    types = tuple(f"class {k}" for k in range(1, classes + 1))
    version = f"stardist {importlib.metadata.version('stardist')}, tensorflow {tensorflow.__version__}"
    about = said.about(version, Looks(mpp=0.25, context=96, percentiles=(1.0, 99.8)), types)
    if len(about.types) != classes:
        raise NotAModel(f"{said.path} names {len(about.types)} types; the network in {weights} tells {classes}")
    return StarDist(model, about, said.options(OPTIONS))
