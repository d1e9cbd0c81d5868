"""Pictures and label maps in two folders."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from wsipipe.errors import DatasetError
from wsipipe.labels.annotated import Content
from wsipipe.labels.pictures import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    SLIDE_SUFFIXES,
    check_size,
    read_labels,
    read_picture,
)
from wsipipe.labels.sources import Item


def items(folder: Path) -> list[Item]:
    """Return the images of *folder*: ``images/`` and ``labels/`` with the same stems.

    Raises
    ------
    DatasetError
        A folder is missing, a label has no image, or two files have one stem.
    """
    images = _by_stem(folder / "images", (*IMAGE_SUFFIXES, *SLIDE_SUFFIXES))
    labels = _by_stem(folder / "labels", LABEL_SUFFIXES)
    if missing := sorted(set(images) ^ set(labels)):
        raise DatasetError(f"{folder}: {missing[0]} has only an image or only a label map; every stem needs both")
    return [Item(stem, partial(_read, images[stem], labels[stem])) for stem in sorted(images)]


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; an annotated set has images/ and labels/ with the same names")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)
    if twice := [p.stem for p, q in zip(paths, paths[1:]) if p.stem == q.stem]:
        raise DatasetError(f"{folder}: two files are named {twice[0]}; every stem needs one")
    return {p.stem: p for p in paths}


def _read(image_path: Path, label_path: Path) -> Content:
    (image, mpp), labels = read_picture(image_path), read_labels(label_path)
    check_size(image, labels, str(label_path))
    return Content(image, labels, mpp=mpp)
