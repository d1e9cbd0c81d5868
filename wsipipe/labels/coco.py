"""COCO JSON: images, categories, and annotations with polygons or run-length masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsipipe.artifacts import from_json
from wsipipe.artifacts.plain import text_of
from wsipipe.errors import DatasetError, in_words
from wsipipe.labels.annotated import Content
from wsipipe.labels.outlines import Outline, paint
from wsipipe.labels.pictures import read_picture
from wsipipe.labels.sources import Item, files_under, picture_of, unique

KEYS = ("images", "annotations")


def items(path: Path) -> list[Item]:
    """Return the images of the COCO files under *path* (those whose JSON has ``images`` and ``annotations``).

    Raises
    ------
    DatasetError
    """
    root = path
    if path.is_file():
        root = path.parent.parent if path.parent.name.lower().startswith("annotation") else path.parent
    return unique([item for file in files_under(path, ".json") for item in _items_of_file(file, root)], path)


def is_coco(path: Path) -> bool:
    """Whether the JSON file at *path* is COCO's."""
    content = read_json(path)
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in KEYS)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    try:
        return from_json(text_of(path))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not a readable JSON file ({in_words(error)})") from error


def _items_of_file(path: Path, root: Path) -> list[Item]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in KEYS):
        return []
    try:
        names = {c["id"]: str(c["name"]) for c in content.get("categories", [])}
        of_image: dict[Any, list[Mapping[str, Any]]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        return [
            Item(Path(image["file_name"]).stem, partial(_read, path, root, image, of_image[image["id"]], names))
            for image in content["images"]
        ]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path}: not COCO as it should be ({in_words(error)})") from error


def _read(
    path: Path, root: Path, image: Mapping[str, Any], found: Sequence[Mapping[str, Any]], names: Mapping[Any, str]
) -> Content:
    stated = path.parent / image["file_name"]
    picture = stated if stated.is_file() else picture_of(path, root, Path(image["file_name"]).stem)
    pixels, mpp = read_picture(picture)
    height, width = pixels.shape[:2]
    said = image.get("width", width), image.get("height", height)
    if said != (width, height):
        raise DatasetError(
            f"{path}: {image['file_name']} is {width} x {height} px; the file says {said[0]} x {said[1]}"
        )
    typed = names if len(names) > 1 else {}  # one category says nothing about the type
    outlines = [_outline(a, typed.get(a.get("category_id"), ""), (height, width), path) for a in found]
    labels, kinds = paint(outlines, (width, height), f"{path}, {image['file_name']}")
    return Content(pixels, labels, kinds, mpp)


def _outline(annotation: Mapping[str, Any], kind: str, shape: tuple[int, int], path: Path) -> Outline:
    shown = annotation.get("segmentation") or []
    try:
        if isinstance(shown, dict):
            return Outline([], kind, run_length_mask(shown, shape))
        return Outline([np.array(part, np.float64).reshape(-1, 2) for part in shown], kind)
    except (KeyError, TypeError, ValueError) as error:
        where = f"{path}: annotation {annotation.get('id', '?')}"
        raise DatasetError(
            f"{where} has no usable segmentation ({in_words(error)}); expected polygons or run lengths"
        ) from error


def run_length_mask(coded: Mapping[str, Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask (H, W) of COCO run lengths, plain or compressed to text; they run down the columns, from 0s.

    Raises
    ------
    ValueError
        When they are not as long as the image.
    """
    if tuple(coded["size"]) != shape:
        raise ValueError(f"its size is {coded['size']}, the image's {list(shape)}")
    counts = coded["counts"]
    counts = np.array(_uncompressed(counts) if isinstance(counts, str) else counts, np.int64)
    if (counts < 0).any() or counts.sum() != shape[0] * shape[1]:
        raise ValueError(f"its runs add up to {counts.sum()} px, the image has {shape[0] * shape[1]}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(shape[1], shape[0]).T


def _uncompressed(text: str) -> list[int]:
    """Return the run lengths in COCO's text: six bits a character, the fifth the sign or "more to come" bit.

    From the fourth on, a number is the difference to the one two before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        value -= (1 << shift) if bits & 0x10 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts
