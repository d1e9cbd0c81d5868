"""Annotated sets: images with an instance map each, their resolution, and splits that no patient crosses."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsipipe.errors import DatasetError

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
TYPICAL_NUCLEUS_UM = 6.5
"""Median equivalent diameter by which images of unknown resolution are scaled (``mpp = "nuclei"``)."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetSpec:
    """Where an annotated set lies and how to read it.

    Attributes
    ----------
    path : str
        Folder with ``images/`` and ``labels/`` of the same stems.
    mpp : float or 'nuclei'
        Resolution in um/px; ``nuclei`` estimates it per image from the median nuclear diameter.
    patient : str
        Regular expression whose first group, matched at the start of a stem, is the patient.
    split : str
        JSON file ``{"train": [...], "val": [...], "test": [...]}`` of patients or file names; what it does not name
        belongs to *default_split*.
    weight : float
        Share of training samples drawn from this set, relative to the others.
    """

    path: str
    mpp: float | str = 0.25
    patient: str = r"(.+)"
    split: str = ""
    default_split: str = "train"
    weight: float = 1.0


@dataclass(frozen=True)
class Annotated:
    """One annotated image in memory.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    labels : int32 (H, W)
        0 background, 1..n instances.
    mpp : float
    """

    name: str
    patient: str
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    mpp: float


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the RGB picture at *path*, uint8 (H, W, 3)."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise DatasetError(f"{path}: not a readable picture ({error}); expected PNG, JPEG or TIFF") from error


def read_labels(path: Path) -> NDArray[np.int32]:
    """Return the instance map at *path*, renumbered 1..n, int32 (H, W)."""
    raw = _read_array(path)
    if raw.ndim != 2 or not raw.size:
        raise DatasetError(f"{path}: label map has shape {raw.shape}; expected (height, width), one integer per pixel")
    if raw.dtype.kind not in "biuf" or (raw < 0).any() or (raw % 1).any():
        raise DatasetError(
            f"{path}: label map holds {raw.dtype} that are no instance numbers; expected integers from 0"
        )
    values, inverse = np.unique(raw, return_inverse=True)
    first = 0 if values[0] == 0 else 1
    return (inverse.reshape(raw.shape) + first).astype(np.int32)


def _read_array(path: Path) -> NDArray[Any]:
    """Return the array in an NPY file, or the pixels of a picture as they are stored."""
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
            return pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    except (UnidentifiedImageError, OSError, EOFError, ValueError) as error:
        expected = "expected an integer PNG, TIFF or NPY"
        raise DatasetError(f"{path}: not a readable label map ({error}); {expected}") from error


def nuclear_mpp(labels: NDArray[np.int32]) -> float:
    """Return the resolution at which the median nucleus of *labels* measures 6.5 um across."""
    areas = np.bincount(labels.ravel())[1:]
    diameter = 2 * np.sqrt(np.median(areas) / np.pi) if areas.size else 26.0
    return float(np.clip(TYPICAL_NUCLEUS_UM / diameter, 0.12, 0.6))


def read_set(spec: DatasetSpec, split: str, root: Path = Path()) -> list[Annotated]:
    """Return the images of *spec* that belong to *split*, in the order of their names.

    Raises
    ------
    DatasetError
        A folder is missing, a label has no image, sizes differ, or a patient falls into two splits.
    """
    folder = root / spec.path
    images = _by_stem(folder / "images", IMAGE_SUFFIXES)
    labels = _by_stem(folder / "labels", LABEL_SUFFIXES)
    if missing := sorted(set(images) ^ set(labels)):
        raise DatasetError(f"{folder}: {missing[0]} has only an image or only a label map; every stem needs both")
    assigned = assign(spec, sorted(images), root)
    return [_read_one(spec, images[s], labels[s]) for s in sorted(images) if assigned[s] == split]


def assign(spec: DatasetSpec, stems: Sequence[str], root: Path = Path()) -> dict[str, str]:
    """Return the split of every stem; no patient is in two.

    Raises
    ------
    DatasetError
    """
    by_entry = read_split(root / spec.split) if spec.split else {}
    result = {s: by_entry.get(s) or by_entry.get(patient(spec, s)) or spec.default_split for s in stems}
    seen: dict[str, str] = {}
    for stem, name in result.items():
        who = patient(spec, stem)
        if seen.setdefault(who, name) != name:
            raise DatasetError(f"{spec.path}: patient {who} is in {seen[who]} and {name}; a patient has one split")
    return result


def read_split(path: Path) -> dict[str, str]:
    """Return the split of every patient or stem that the JSON file at *path* names.

    Raises
    ------
    DatasetError
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not a readable split file ({error}); expected JSON") from error
    if not isinstance(listed, dict) or not all(k in SPLITS and isinstance(v, list) for k, v in listed.items()):
        raise DatasetError(f"{path}: expected an object with the lists {', '.join(SPLITS)} and nothing else")
    by_entry: dict[str, str] = {}
    for name, entries in listed.items():
        for entry in map(_without_suffix, entries):
            if by_entry.setdefault(entry, name) != name:
                raise DatasetError(f"{path}: {entry} is in {by_entry[entry]} and {name}; it belongs in one split")
    return by_entry


def _without_suffix(entry: object) -> str:
    path = Path(str(entry))
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else str(entry)


def patient(spec: DatasetSpec, stem: str) -> str:
    """Return the patient of an image *stem*."""
    pattern = f"{spec.path}: the patient pattern {spec.patient!r}"
    try:
        match = re.match(spec.patient, stem)
    except re.error as error:
        raise DatasetError(f"{pattern} is not a regular expression ({error})") from error
    if not match:
        raise DatasetError(f"{pattern} does not match {stem!r}")
    if not match.groups() or match[1] is None:
        raise DatasetError(f"{pattern} has no group that names the patient of {stem!r}; expected (...) around it")
    return match[1]


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; an annotated set has images/ and labels/ with the same names")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)
    if twice := [p.stem for p, q in zip(paths, paths[1:]) if p.stem == q.stem]:
        raise DatasetError(f"{folder}: two files are named {twice[0]}; every stem needs one")
    return {p.stem: p for p in paths}


def _read_one(spec: DatasetSpec, image_path: Path, label_path: Path) -> Annotated:
    image, labels = read_image(image_path), read_labels(label_path)
    if image.shape[:2] != labels.shape:
        raise DatasetError(f"{label_path}: label map is {labels.shape}, its image {image.shape[:2]}; sizes must agree")
    mpp = nuclear_mpp(labels) if spec.mpp == "nuclei" else _resolution(spec)
    return Annotated(image_path.stem, patient(spec, image_path.stem), image, labels, mpp)


def _resolution(spec: DatasetSpec) -> float:
    if isinstance(spec.mpp, str) or not 0 < spec.mpp < float("inf"):
        raise DatasetError(f"{spec.path}: mpp is {spec.mpp!r}; expected a resolution in um/px, or 'nuclei'")
    return float(spec.mpp)
