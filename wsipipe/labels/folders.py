"""Pictures in one folder; label maps, or masks, in another; perhaps the types of the nuclei in a third."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np

from wsipipe.errors import DatasetError, in_words
from wsipipe.labels.annotated import Content
from wsipipe.labels.pictures import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    SLIDE_SUFFIXES,
    check_size,
    read_numbers,
    read_picture,
)
from wsipipe.labels.sources import Item


def items(folder: Path) -> list[Item]:
    """Return the images of *folder*: ``images/`` and ``labels/`` with the same stems.

    In place of ``labels/`` there may be ``masks/``, which tell nucleus (any number but 0) from background. Beside
    ``labels/`` there may be ``types/`` with a CSV of each image, whose columns ``id`` and ``class`` name the type of
    the nuclei.

    Raises
    ------
    DatasetError
        A folder is missing, a label has no image, or two files have one stem.
    """
    masks = not (folder / "labels").is_dir() and (folder / "masks").is_dir()
    images = _by_stem(folder / "images", (*IMAGE_SUFFIXES, *SLIDE_SUFFIXES))
    labels = _by_stem(folder / ("masks" if masks else "labels"), LABEL_SUFFIXES)
    if missing := sorted(set(images) ^ set(labels)):
        raise DatasetError(f"{folder}: {missing[0]} has only an image or only a label map; every stem needs both")
    if masks:
        return [Item(stem, partial(_read_mask, images[stem], labels[stem])) for stem in sorted(images)]
    types = _by_stem(folder / "types", (".csv",)) if (folder / "types").is_dir() else {}
    return [Item(stem, partial(_read, images[stem], labels[stem], types.get(stem))) for stem in sorted(images)]


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; an annotated set has images/ and labels/ with the same names")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)
    if twice := [p.stem for p, q in zip(paths, paths[1:]) if p.stem == q.stem]:
        raise DatasetError(f"{folder}: two files are named {twice[0]}; every stem needs one")
    return {p.stem: p for p in paths}


def _read(image_path: Path, label_path: Path, types_path: Path | None) -> Content:
    (image, mpp), labels = read_picture(image_path), read_numbers(label_path)
    check_size(image, labels, str(label_path))
    return Content(image, labels, _types(types_path) if types_path else {}, mpp)


def _read_mask(image_path: Path, mask_path: Path) -> Content:
    (image, mpp), mask = read_picture(image_path), read_numbers(mask_path)
    check_size(image, mask, str(mask_path))
    return Content(image, (mask > 0).astype(np.uint8), mpp=mpp, merged=True)


def _types(path: Path) -> dict[int, str]:
    """Return the type of each nucleus that the CSV at *path* names."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {int(row["id"]): row["class"].strip() for row in csv.DictReader(file)}
    except (OSError, KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise DatasetError(
            f"{path}: not a table of types ({in_words(error)}); expected the columns id and class"
        ) from error
