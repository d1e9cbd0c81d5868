"""Annotated sets: images with an instance map each, their resolution, and splits that no patient crosses."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    try:
        raw = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.asarray(Image.open(path))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DatasetError(f"{path}: not a readable label map ({error}); expected an integer PNG, TIFF or NPY") from error
    if raw.ndim != 2:
        raise DatasetError(f"{path}: label map has shape {raw.shape}; expected (height, width), one integer per pixel")
    values, inverse = np.unique(raw, return_inverse=True)
    return (inverse.reshape(raw.shape) + (values[0] != 0)).astype(np.int32)


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
    listed = json.loads((root / spec.split).read_text()) if spec.split else {}
    by_entry = {str(entry).removesuffix(".png"): name for name in SPLITS for entry in listed.get(name, [])}
    result = {s: by_entry.get(s) or by_entry.get(patient(spec, s)) or spec.default_split for s in stems}
    seen: dict[str, str] = {}
    for stem, name in result.items():
        if seen.setdefault(patient(spec, stem), name) != name:
            raise DatasetError(f"{spec.path}: patient {patient(spec, stem)} is in {seen[patient(spec, stem)]} and {name}")
    return result


def patient(spec: DatasetSpec, stem: str) -> str:
    """Return the patient of an image *stem*."""
    match = re.match(spec.patient, stem)
    if not match:
        raise DatasetError(f"{spec.path}: the patient pattern {spec.patient!r} does not match {stem!r}")
    return match.group(1)


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; an annotated set has images/ and labels/ with the same names")
    return {p.stem: p for p in folder.iterdir() if p.suffix.lower() in suffixes}


def _read_one(spec: DatasetSpec, image_path: Path, label_path: Path) -> Annotated:
    image, labels = read_image(image_path), read_labels(label_path)
    if image.shape[:2] != labels.shape:
        raise DatasetError(f"{label_path}: label map is {labels.shape}, its image {image.shape[:2]}; sizes must agree")
    mpp = nuclear_mpp(labels) if spec.mpp == "nuclei" else float(spec.mpp)
    return Annotated(image_path.stem, patient(spec, image_path.stem), image, labels, mpp)
