"""Pictures and label maps from files, or one line that says why not."""

from __future__ import annotations

import warnings
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsipipe.errors import FAILURES, DatasetError, SlideError, in_words
from wsipipe.labels.annotated import numbered
from wsipipe.slide import open_slide
from wsipipe.slide.suffixes import PICTURES, SLIDES, TIFF

IMAGE_SUFFIXES = (*PICTURES, *TIFF)
SLIDE_SUFFIXES = tuple(suffix for suffix in SLIDES if suffix not in TIFF)
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
MAX_PIXELS = 16_384**2
"""No annotated image is larger; slides are annotated region by region."""
COLOUR = ("RGB", "RGBA", "P")
"""Modes of Pillow that hold 8-bit colour."""

NPY_FAILURES: tuple[type[Exception], ...] = (*FAILURES, TokenError)
"""What NumPy raises on a damaged NPY file, whose header is Python."""
_FAILURES: tuple[type[Exception], ...] = (*NPY_FAILURES, UnidentifiedImageError, Image.DecompressionBombError)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the RGB picture at *path*, uint8 (H, W, 3); transparent pixels lie on white.

    Raises
    ------
    DatasetError
        When it cannot be read, or is not 8-bit colour.
    """
    return read_picture(path)[0]


def read_picture(path: Path) -> tuple[NDArray[np.uint8], float | None]:
    """Return the RGB picture at *path*, uint8 (H, W, 3), and the µm/px that a slide file states, else None."""
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return _read_slide(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                _check_mode(path, picture.mode)
                return _on_white(picture), None
    except DatasetError:
        raise
    except _FAILURES as error:
        raise DatasetError(f"{path}: not a readable picture ({in_words(error)}); expected PNG, JPEG or TIFF") from error


def check_pixels(pixels: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """Return an array (H, W, 3) of whole numbers 0..255 as uint8; refuse any other."""
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DatasetError(f"{where}: an image has shape {pixels.shape}; expected (height, width, 3) for RGB")
    if pixels.dtype != np.uint8 and (pixels.min(initial=0) < 0 or pixels.max(initial=0) > 255):
        raise DatasetError(f"{where}: {pixels.dtype} values reach {pixels.max():g}; expected 8-bit colour, 0 to 255")
    return pixels.astype(np.uint8)


def _check_mode(path: Path, mode: str) -> None:
    if mode not in COLOUR:
        what = {"L": "grey", "1": "black and white", "LA": "grey", "CMYK": "CMYK"}.get(mode, f"of mode {mode}")
        what = "16-bit grey" if mode.startswith("I") else what
        raise DatasetError(f"{path}: the picture is {what}; expected 8-bit RGB colour (convert it first)")


def _on_white(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode == "P" or picture.mode == "RGBA":
        layered = picture.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), layered).convert("RGB"))
    return np.asarray(picture)


def _read_slide(path: Path) -> tuple[NDArray[np.uint8], float | None]:
    try:
        with open_slide(path) as slide:
            width, height = slide.info.size
            if width * height > MAX_PIXELS:
                raise DatasetError(
                    f"{path}: {width} x {height} px is too large for one annotated image; expected a cut-out, "
                    "or regions of the slide as QuPath GeoJSON"
                )
            mpp = slide.info.mpp
            return slide.read_region(0, 0, 0, width, height), mpp and (mpp[0] + mpp[1]) / 2
    except SlideError as error:
        raise DatasetError(str(error)) from error


def read_labels(path: Path) -> NDArray[np.int32]:
    """Return the instance map at *path*, renumbered 1..n, int32 (H, W).

    Raises
    ------
    DatasetError
    """
    return numbered(read_numbers(path))[0]


def read_numbers(path: Path) -> NDArray[Any]:
    """Return the instance map at *path* with the numbers of the file, (H, W)."""
    return check_labels(_read_array(path), str(path))


def check_labels(raw: NDArray[Any], where: str) -> NDArray[Any]:
    """Return *raw* when it can be an instance map; refuse it otherwise."""
    if raw.ndim != 2 or not raw.size:
        raise DatasetError(f"{where}: label map has shape {raw.shape}; expected (height, width), one integer per pixel")
    if raw.dtype.kind not in "biuf" or (raw < 0).any() or (raw % 1).any():
        raise DatasetError(
            f"{where}: label map holds {raw.dtype} that are no instance numbers; expected integers from 0"
        )
    return raw.astype(np.uint8) if raw.dtype == bool else raw


def check_size(image: NDArray[np.uint8], labels: NDArray[Any], where: str) -> None:
    """Raise :class:`~wsipipe.errors.DatasetError` when an image and its label map differ in size."""
    if image.shape[:2] != labels.shape:
        raise DatasetError(f"{where}: label map is {labels.shape}, its image {image.shape[:2]}; sizes must agree")


def _read_array(path: Path) -> NDArray[Any]:
    """Return the array in an NPY file, or the pixels of a picture as they are stored."""
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        with Image.open(path) as picture:
            return np.asarray(picture)
    except _FAILURES as error:
        expected = "expected an integer PNG, TIFF or NPY"
        raise DatasetError(f"{path}: not a readable label map ({in_words(error)}); {expected}") from error
