"""One annotated image in memory, where a set of them lies, and how its instances are numbered and named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import DatasetError
from wsipipe.labels.nuclear_size import nuclear_mpp

DEFAULT_MPP = 0.25
"""Resolution of a set that states none: 40x."""
UNKNOWN = -1
"""Label of pixels that nobody annotated; they carry no loss and are not scored."""
LEAST_SIDE = 64
"""Side in px below which no picture is halved."""
IGNORED = ("ignore", "ignore*", "ambiguous")
"""Names of classes (in lower case) whose pixels are :data:`UNKNOWN`: QuPath's ``Ignore*``, MoNuSAC's ``Ambiguous``."""


@dataclass(frozen=True)
class DatasetSpec:
    """Where an annotated set lies and how to read it.

    Attributes
    ----------
    path : str
        Folder or file of the set; its forms are listed in :mod:`wsipipe.labels.sources`.
    mpp : float, 'auto' or 'nuclei'
        Resolution in µm/px; ``auto`` takes what the set states, else 0.25; ``nuclei`` estimates it per image from the
        median nuclear diameter. For regions of a slide: the resolution at which they are read.
    patient : str
        Regular expression whose first group, matched at the start of an image's name, is the patient.
    split : str
        JSON file ``{"train": [...], "val": [...], "test": [...]}`` of patients or file names; what it does not name
        belongs to *default_split*.
    weight : float
        Share of training samples drawn from this set, relative to the others.
    format : str
        Form of the set (see :data:`wsipipe.settings.SET_FORMS`), or ``auto``.
    classes : tuple of str
        Cell types: names of the type numbers 1, 2, ... in order, and ``OLD=NEW`` to rename one. ``ignore`` as a name
        takes its pixels out; an empty name leaves its nuclei without a type.
    merged : bool
        Touching nuclei are one object: the set tells nucleus from background, not one nucleus from the next. A folder
        with ``masks/`` is always read so.
    partial : bool
        Only some nuclei are outlined: what lies outside the outlines is unknown, not background.
    """

    path: str
    mpp: float | str = "auto"
    patient: str = r"(.+)"
    split: str = ""
    default_split: str = "train"
    weight: float = 1.0
    format: str = "auto"
    classes: tuple[str, ...] = ()
    merged: bool = False
    partial: bool = False


@dataclass(frozen=True)
class Annotated:
    """One annotated image in memory.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    labels : int32 (H, W)
        0 background, 1..n instances, -1 where nobody annotated.
    mpp : float
    types : tuple of str
        Type of instances 1..n, "" where it is not known; empty when the set has no types.
    merged : bool
        Whether touching nuclei share one number; see :class:`DatasetSpec`.
    assumed : bool
        Whether nothing states the resolution, and *mpp* is :data:`DEFAULT_MPP`.
    """

    name: str
    patient: str
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    mpp: float
    types: tuple[str, ...] = ()
    merged: bool = False
    assumed: bool = False

    @cached_property
    def pyramid(self) -> tuple[NDArray[np.uint8], ...]:
        """The image, and at each further place the one before at half its resolution, each pixel the mean of four."""
        levels = [self.image]
        while min(levels[-1].shape[:2]) >= 2 * LEAST_SIDE:
            height, width = (side // 2 for side in levels[-1].shape[:2])
            even = levels[-1][: 2 * height, : 2 * width]
            levels.append(np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8))
        return tuple(levels)

    @cached_property
    def diameter(self) -> float:
        """Median equivalent diameter of the nuclei in px; NaN without any, or where touching ones are merged."""
        areas = np.bincount(np.maximum(self.labels, 0).ravel())[1:]
        return math.nan if self.merged or not areas.size else float(2 * np.sqrt(np.median(areas) / np.pi))


@dataclass(frozen=True)
class Content:
    """What a source says of one image, before names of types and resolution are settled.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    labels : int (H, W)
        0 background, other positive numbers instances, -1 not annotated.
    kinds : mapping of int to str
        Type of an instance by its number in *labels*: a name, or the decimal digits of a type number.
    mpp : float or None
        Resolution that the set states.
    merged : bool
        Whether *labels* only tell nucleus from background.
    """

    image: NDArray[np.uint8]
    labels: NDArray[Any]
    kinds: Mapping[int, str] = field(default_factory=dict)
    mpp: float | None = None
    merged: bool = False


def settle(name: str, patient: str, content: Content, spec: DatasetSpec) -> Annotated:
    """Return the image with instances numbered 1..n, types named as *spec* asks, and a resolution."""
    labels, numbers = numbered(content.labels)
    naming = renaming(spec)
    types = tuple(_named(content.kinds.get(int(number), ""), naming) for number in numbers) if content.kinds else ()
    if ignored := [k for k, kind in enumerate(types, 1) if kind.lower() in IGNORED]:
        labels, numbers = numbered(np.where(np.isin(labels, ignored), UNKNOWN, labels))
        types = tuple(types[int(k) - 1] for k in numbers)
    mpp = _resolution(spec, content.mpp, labels)
    if spec.partial:
        labels = np.where(labels == 0, UNKNOWN, labels).astype(np.int32)
    merged, assumed = spec.merged or content.merged, spec.mpp == "auto" and not content.mpp
    return Annotated(name, patient, content.image, labels, mpp, types, merged, assumed)


def assumption(spec: DatasetSpec, images: Sequence[Annotated]) -> str:
    """Return a line for the user on the resolution that had to be assumed of some *images*; "" where all state it."""
    count = sum(a.assumed for a in images)
    if not count:
        return ""
    return (
        f"{spec.path}: {count} of {len(images)} images state no resolution and are taken to be at {DEFAULT_MPP:g} "
        "µm/px (40x); if they are not, say it: --mpp 0.5, or --mpp nuclei to go by the size of the nuclei (`mpp` in "
        "[[datasets]])"
    )


def numbered(raw: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return *raw* with its positive values renumbered 1..n, and the n values; 0 and :data:`UNKNOWN` stay."""
    values, inverse = np.unique(raw, return_inverse=True)
    below = int((values <= 0).sum())
    new = np.concatenate([np.minimum(values[:below], 0), np.arange(1, len(values) - below + 1)]).astype(np.int32)
    return new[inverse.reshape(raw.shape)], values[below:].astype(np.int64)


def renaming(spec: DatasetSpec) -> dict[str, str]:
    """Return the new name of each type number and old name that ``spec.classes`` gives."""
    plain = [entry for entry in spec.classes if "=" not in entry]
    pairs = [entry.split("=", 1) for entry in spec.classes if "=" in entry]
    return {str(k): name for k, name in enumerate(plain, 1)} | {old.strip(): new.strip() for old, new in pairs}


def _named(kind: str, naming: Mapping[str, str]) -> str:
    return naming.get(kind, f"type {kind}" if kind.isdigit() else kind)


def type_names(images: Sequence[Annotated]) -> tuple[str, ...]:
    """Return the names of all types in *images*, sorted."""
    return tuple(sorted({kind for a in images for kind in a.types if kind}))


def _resolution(spec: DatasetSpec, stated: float | None, labels: NDArray[np.int32]) -> float:
    if spec.mpp == "nuclei":
        return nuclear_mpp(labels)
    mpp = (stated or DEFAULT_MPP) if spec.mpp == "auto" else spec.mpp
    if isinstance(mpp, str) or not 0 < mpp < float("inf"):
        raise DatasetError(f"{spec.path}: mpp is {mpp!r}; expected a resolution in µm/px, 'auto', or 'nuclei'")
    return float(mpp)
