"""PanNuke: folds of 256 px images with a mask channel per cell type.

``images.npy`` (n, 256, 256, 3), ``masks.npy`` (n, 256, 256, 6) with instance numbers in the first five channels and the
background in the last, ``types.npy`` (n,) the tissue of each image. Files are memory-mapped and read image by image.
Names are ``FOLD_NUMBER_TISSUE``; a split file may name folds (``--patient '(fold.)'``).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import DatasetError, in_words
from wsipipe.labels.annotated import Content
from wsipipe.labels.pictures import NPY_FAILURES, check_pixels
from wsipipe.labels.sources import Item, files_under, unique

CHANNELS = ("Neoplastic", "Inflammatory", "Connective", "Dead", "Epithelial")
"""Types of the mask channels, in order; a sixth channel marks the background."""
MPP = 0.25
LAST_LETTER = 0xD7FF
"""Of those that two bytes hold; what follows are halves of letters."""


def items(path: Path) -> list[Item]:
    """Return the images of every fold under *path*, in the order of their names.

    Raises
    ------
    DatasetError
    """
    masks = files_under(path if path.is_dir() else path.parent, "masks.npy")
    folds = {_fold(mask, k): mask for k, mask in enumerate(masks, 1)}
    if len(folds) < len(masks):
        raise DatasetError(f"{path}: two folds lie in folders of one name; expected fold1/, fold2/, ...")
    return unique([item for name, mask in folds.items() for item in _items_of_fold(name, mask, path)], path)


def _fold(mask: Path, number: int) -> str:
    """Return the name of the fold: of the folder of its masks where that says so (``fold1``), else by number."""
    name = mask.parent.name.lower().replace(" ", "")
    return name if name.startswith("fold") else f"fold{number}"


def _items_of_fold(fold: str, mask: Path, root: Path) -> list[Item]:
    image = _partner(mask, root, "images.npy")
    if image is None:
        raise DatasetError(f"{mask}: no images.npy beside it or in a folder {mask.parent.name} of its own")
    images, masks = _mapped(image), _mapped(mask)
    if masks.ndim != 4 or masks.shape[-1] not in (len(CHANNELS), len(CHANNELS) + 1):
        raise DatasetError(f"{mask}: masks have shape {masks.shape}; expected (images, height, width, 6)")
    if images.ndim != 4 or images.shape[:3] != masks.shape[:3]:
        raise DatasetError(
            f"{image}: images have shape {images.shape}, masks {masks.shape}; expected as many of a size"
        )
    tissues = _tissues(_partner(mask, root, "types.npy"), len(images))
    names = [f"{fold}_{i:05d}{tissue}" for i, tissue in enumerate(tissues)]
    return [Item(name, partial(_read, images, masks, i, str(mask))) for i, name in enumerate(names)]


def _partner(mask: Path, root: Path, name: str) -> Path | None:
    """Return the file *name* of the fold of *mask*: beside it, or in a folder that is called like its own."""
    if (mask.parent / name).is_file():
        return mask.parent / name
    alike = [p for p in files_under(root, name) if p.parent.name == mask.parent.name]
    near = [p for p in alike if p.parent.parent.parent == mask.parent.parent.parent] or alike
    return near[0] if near else None


def _tissues(path: Path | None, count: int) -> list[str]:
    if path is None:
        return [""] * count
    tissues = _mapped(path, mapped=False)
    if tissues.shape != (count,):
        raise DatasetError(f"{path}: types have shape {tissues.shape}; expected ({count},), one tissue per image")
    if tissues.dtype.kind != "U" or not _are_words(tissues):
        raise DatasetError(f"{path}: holds {tissues.dtype} that are no names of tissues; was the copy cut short?")
    return [f"_{tissue}" for tissue in tissues.tolist()]


def _are_words(names: NDArray[np.str_]) -> bool:
    """Whether all *names* are letters and may be part of a file's name; damage makes numbers that are no letters."""
    codes = np.ascontiguousarray(names.astype(names.dtype.newbyteorder("="))).view(np.uint32)
    odd = (codes > LAST_LETTER) | ((codes > 0) & (codes < ord(" "))) | np.isin(codes, [ord(c) for c in "/\\"])
    return not odd.any() and not any("\0" in name for name in names.tolist())


def _mapped(path: Path, mapped: bool = True) -> NDArray[Any]:
    try:
        return np.asanyarray(np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False))
    except NPY_FAILURES as error:
        raise DatasetError(f"{path}: not a readable NPY file ({in_words(error)}); was the copy cut short?") from error


def _read(images: NDArray[Any], masks: NDArray[Any], index: int, where: str) -> Content:
    image = check_pixels(np.asarray(images[index]), f"{where}, image {index}")
    mask = np.asarray(masks[index][..., : len(CHANNELS)])
    if (mask < 0).any() or (mask % 1).any():
        raise DatasetError(f"{where}, image {index}: masks hold values that are no instance numbers")
    labels = np.zeros(mask.shape[:2], np.int64)
    kinds: dict[int, str] = {}
    for channel, kind in enumerate(CHANNELS):
        inside = mask[..., channel] > 0
        values, inverse = np.unique(mask[..., channel][inside], return_inverse=True)
        labels[inside] = len(kinds) + 1 + inverse  # numbers may repeat from channel to channel
        kinds |= {len(kinds) + 1 + k: kind for k in range(len(values))}
    return Content(image, labels, kinds or {0: ""}, MPP)
