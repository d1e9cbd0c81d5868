"""What a network in a file returns, and the objects that it means: TorchScript and ONNX alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from wsipipe.errors import ModelError, NotAModel
from wsipipe.plugins.hovernet import instances
from wsipipe.plugins.levels import Levels, scaled
from wsipipe.plugins.protocol import About, Objects
from wsipipe.plugins.said import Said

OPTIONS: dict[str, Any] = {
    "output": "hovernet",
    "order": ["np", "hv", "tp"],
    "logits": True,
    "threshold": 0.5,
    "scale": 1.0,
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
}
"""``[options]`` of the TOML file.

output: hovernet, labels or foreground. order: which output comes first, of a network that does not name them. logits:
whether outputs still lack their softmax or sigmoid. threshold: of the nuclear probability. Pixels from 0 to 1 are
multiplied by scale, less mean, by std.
"""
KINDS = "hovernet", "labels", "foreground"
Array = NDArray[Any]


class Reading:
    """How pixels go into a network, and how its outputs become objects.

    Parameters
    ----------
    said : Said
    about : About

    Raises
    ------
    NotAModel
    """

    def __init__(self, said: Said, about: About) -> None:
        self.about, self.asked = about, said.options(OPTIONS)
        if self.asked["output"] not in KINDS:
            raise NotAModel(f"{said.path}: its option output is {self.asked['output']!r}; expected {', '.join(KINDS)}")

    def pixels(self, tiles: NDArray[np.uint8], levels: Levels) -> NDArray[np.float32]:
        """Return *tiles* (n, side, side, 3) as the network takes them: float32 (n, 3, side, side)."""
        mean, std = (np.array(self.asked[name], np.float32) for name in ("mean", "std"))
        values = (scaled(tiles, levels) * np.float32(self.asked["scale"]) - mean) / std
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def objects(self, returned: Any, count: int) -> list[Objects]:
        """Return the objects of *count* tiles that a network *returned*: arrays (n, C, h, w), one or several, or named.

        Raises
        ------
        ModelError
        """
        kind = self.asked["output"]
        named = self._named(returned)
        if kind == "labels":
            return [Objects(label_image(one)) for one in self._whole(named["out"], count)]
        if kind == "foreground":
            maps = self._whole(self._nucleus(named["out"]), count)
            return [self._components(one[0]) for one in maps]
        missing = {"np", "hv"} - set(named)
        if missing:
            raise ModelError(f"the network returns no {' and no '.join(sorted(missing))}; see the option order")
        types = self._whole(self._types(named["tp"]), count) if "tp" in named and self.about.types else [None] * count
        both = zip(self._whole(self._nucleus(named["np"]), count), self._whole(named["hv"], count), types, strict=True)
        return [self._nuclei(nucleus[0], distances, kinds) for nucleus, distances, kinds in both]

    def _named(self, returned: Any) -> dict[str, Array]:
        if isinstance(returned, Mapping):
            found = {str(name): np.asarray(value) for name, value in returned.items()}
            return found if self.asked["output"] == "hovernet" else {"out": next(iter(found.values()))}
        several = list(returned) if isinstance(returned, Sequence) else [returned]
        names = self.asked["order"] if self.asked["output"] == "hovernet" else ["out"]
        return {name: np.asarray(value) for name, value in zip(names, several, strict=False)}

    def _whole(self, maps: Array, count: int) -> Array:
        """Return *maps* (n, C, side, side) of networks that return only the middle of what they see."""
        maps = maps[:, None] if maps.ndim == 3 else maps
        side = self.about.looks.tile
        lost, odd = divmod(side - maps.shape[-1], 2)
        if maps.ndim != 4 or len(maps) != count or maps.shape[2] != maps.shape[3] or lost < 0 or odd:
            raise ModelError(f"the network returns {maps.shape} for {count} tiles of {side} px; expected (n, C, h, w)")
        if lost > self.about.looks.context:
            raise ModelError(
                f"the network returns the inner {maps.shape[-1]} px of {side}; give context = {lost} or more in the "
                "TOML file beside it"
            )
        if not np.isfinite(maps).all():
            raise ModelError("the network gives no numbers (NaN or infinity); its training has diverged")
        return np.pad(maps, ((0, 0), (0, 0), (lost, lost), (lost, lost)))

    def _nucleus(self, maps: Array) -> Array:
        """Return the probability of a nucleus, (n, 1, h, w)."""
        maps = maps[:, None] if maps.ndim == 3 else maps
        if maps.shape[1] == 2:
            return _softmax(maps)[:, 1:] if self.asked["logits"] else maps[:, 1:]
        return np.asarray(expit(maps)) if self.asked["logits"] else maps

    def _types(self, maps: Array) -> Array:
        """Return the probability of each type, (n, T, h, w); where there is one channel more, the first is none."""
        values, wanted = _softmax(maps) if self.asked["logits"] else maps, len(self.about.types)
        if values.shape[1] not in (wanted, wanted + 1):
            raise ModelError(f"the network tells {values.shape[1]} types; the TOML file beside it names {wanted}")
        return values[:, -wanted:]

    def _components(self, nucleus: Array) -> Objects:
        mask = (nucleus >= self.asked["threshold"]).astype(np.uint8)
        count, labels = cv2.connectedComponents(mask, connectivity=4)
        return Objects(labels, _means(labels, nucleus[None], count - 1)[:, 0])

    def _nuclei(self, nucleus: Array, distances: Array, types: Array | None) -> Objects:
        labels = instances(nucleus.astype(np.float32), distances.astype(np.float32), self.asked["threshold"])
        numbers, inverse = np.unique(labels, return_inverse=True)  # numbers may have gaps
        labels = (inverse.reshape(labels.shape) + (numbers[0] != 0)).astype(np.int32)
        count = int(labels.max(initial=0))
        probability = _means(labels, nucleus[None], count)[:, 0]
        if types is None:
            return Objects(labels, probability, np.zeros((count, len(self.about.types))))
        means = _means(labels, types, count)
        total = means.sum(axis=1, keepdims=True)
        return Objects(labels, probability, np.divide(means, total, out=np.zeros_like(means), where=total > 0))


def label_image(maps: Array) -> NDArray[np.int32]:
    """Return a label image (h, w) that a network gave as (C, h, w), of which the first channel counts, as 1..n."""
    numbers, inverse = np.unique(np.round(maps[0]).astype(np.int64), return_inverse=True)
    return np.asarray(inverse.reshape(maps.shape[1:]) + (numbers[0] != 0), np.int32)


def _means(labels: NDArray[np.integer], maps: Array, count: int) -> NDArray[np.float64]:
    """Return the mean of each of the maps (K, h, w) over the labels 1..count: (count, K), in [0, 1]."""
    flat = labels.ravel()
    pixels = np.maximum(np.bincount(flat, minlength=count + 1), 1)
    sums = [np.bincount(flat, weights=one.ravel().astype(np.float64), minlength=count + 1) / pixels for one in maps]
    return np.clip(np.stack(sums, axis=1)[1:], 0, 1)


def _softmax(maps: Array) -> Array:
    powers = np.exp(maps - maps.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
