"""Plain pictures (PNG, JPEG, TIFF, BMP, ...) as slides of one level, held in memory. They need ``--mpp``."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsipipe.errors import FAILURES, UnsupportedSlide
from wsipipe.slide.protocol import SlideInfo
from wsipipe.slide.reader import Reader, pyramid
from wsipipe.slide.resolution import choose_mpp, tiff_mpp
from wsipipe.units import Pair

MAX_PIXELS = 2**30
"""Larger pictures should become tiled pyramids: the whole picture is held in memory."""
TIFF_UNITS = {2: "inch", 3: "centimeter"}


class PictureReader(Reader[NDArray[np.uint8]]):
    """A picture opened by Pillow. The resolution of PNG and JPEG is one of print, and not believed; that of TIFF is."""

    name = "picture"
    failures = (*FAILURES, UnidentifiedImageError, Image.DecompressionBombError)

    def _open(self) -> NDArray[np.uint8]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage, which ends in an error, and of size, which is checked here
            with Image.open(self._path) as image:
                _refuse_other_than_colour(self._path, image)
                self._mpp = _tiff_mpp(image)
                self._format = image.format or "picture"
                has_alpha = "A" in image.mode or "transparency" in image.info
                return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))

    def _describe(self, handle: NDArray[np.uint8]) -> SlideInfo:
        mpp, source = choose_mpp(None, self._mpp, None)
        return SlideInfo(
            path=self._path,
            backend=self.name,
            levels=pyramid([(handle.shape[1], handle.shape[0])]),
            mpp=mpp,
            mpp_source=source,
            vendor=self._format.lower(),
        )

    def _read(
        self, handle: NDArray[np.uint8], level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        return handle[y : y + height, x : x + width]

    def _release(self, handle: NDArray[np.uint8]) -> None:
        pass


def _refuse_other_than_colour(path: str, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnsupportedSlide(
            f"{path} is a picture of {width} x {height} px, too large to hold in memory (2^30 px at most): "
            "convert it to a tiled pyramidal TIFF"
        )
    if getattr(image, "n_frames", 1) > 1 and image.format != "TIFF":
        raise UnsupportedSlide(f"{path} holds {getattr(image, 'n_frames', 1)} frames; expected one picture")
    if image.mode not in ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr"):
        raise UnsupportedSlide(f"{path} holds {image.mode} pixels, not colour; expected 8-bit RGB")


def _tiff_mpp(image: Image.Image) -> Pair | None:
    if image.format != "TIFF":
        return None
    tags = image.getexif()
    return tiff_mpp(tags.get(282), tags.get(283), TIFF_UNITS.get(tags.get(296, 0)))
