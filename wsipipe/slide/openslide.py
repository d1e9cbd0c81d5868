"""Slides through OpenSlide: the default reader.

Registration
------------
OpenSlide takes locations in base pixels and divides them by its own downsample, the mean of the two ratios of the
rounded level sizes. A quotient that is not whole makes it interpolate. The location nearest to the wanted level pixel
is asked for, so pixels are exact where level sizes divide evenly, and otherwise shifted (and slightly smoothed) by at
most half a *base* pixel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import openslide
from numpy.typing import NDArray
from tifffile import TiffFile

from wsipipe.errors import FAILURES, UnsupportedSlide
from wsipipe.slide.planes import refuse_plane
from wsipipe.slide.protocol import SlideInfo
from wsipipe.slide.reader import Reader, pyramid
from wsipipe.slide.resolution import choose_mpp, number, pair, tiff_mpp
from wsipipe.slide.tiff_planes import planes_of
from wsipipe.slide.tiff_tiles import refuse_endless_tiles
from wsipipe.units import Box

GENERIC = ("generic-tiff", "trestle")
"""Vendors whose ``openslide.mpp-x`` is merely the TIFF resolution tag."""


class OpenSlideReader(Reader[openslide.OpenSlide]):
    """A slide opened by OpenSlide."""

    name = "openslide"
    failures = (*FAILURES, openslide.OpenSlideError)

    def _open(self) -> openslide.OpenSlide:
        refuse_endless_tiles(self._path)
        if self._path.lower().endswith(".ndpi"):
            self._leave_stack()
        return openslide.OpenSlide(self._path)

    def _leave_stack(self) -> None:
        """Leave an NDPI file of several focal planes, of which OpenSlide sees the middle one, to TiffSlide."""
        with TiffFile(self._path) as tiff:
            planes = planes_of(tiff, 0)
        refuse_plane(self._path, self._settings.plane, planes)
        if planes:
            raise ValueError(f"a stack of {len(planes)} focal planes, of which it sees one: left to TiffSlide")

    def _describe(self, handle: openslide.OpenSlide) -> SlideInfo:
        properties = handle.properties
        _refuse_fluorescence(self._path, properties)
        if self._settings.backend == "auto" and "<OME" in properties.get("tiff.ImageDescription", ""):
            raise ValueError("OME-TIFF, of which it sees only the first image: left to TiffSlide")
        vendor, objective = properties.get("openslide.vendor"), number(properties.get("openslide.objective-power"))
        stated = pair(properties.get("openslide.mpp-x"), properties.get("openslide.mpp-y"))
        tags = [properties.get(f"tiff.{tag}") for tag in ("XResolution", "YResolution", "ResolutionUnit")]
        generic = vendor in GENERIC
        mpp, source = choose_mpp(None if generic else stated, stated if generic else tiff_mpp(*tags), objective)
        return SlideInfo(
            path=self._path,
            backend=self.name,
            levels=pyramid(list(handle.level_dimensions)),
            mpp=mpp,
            mpp_source=source,
            bounds=_bounds(properties),
            background=_background(properties),
            objective=objective,
            vendor=vendor,
        )

    def _read(
        self, handle: openslide.OpenSlide, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        downsample = handle.level_downsamples[level]
        location = round(x * downsample), round(y * downsample)
        return np.asarray(handle.read_region(location, level, (width, height)))

    def _release(self, handle: openslide.OpenSlide) -> None:
        handle.close()


def _bounds(properties: Mapping[str, str]) -> Box | None:
    keys = (f"openslide.bounds-{key}" for key in ("x", "y", "width", "height"))
    values = [properties.get(key) for key in keys]
    if any(value is None for value in values):
        return None
    x, y, width, height = (int(float(value or 0)) for value in values)
    return x, y, x + width, y + height


def _background(properties: Mapping[str, str]) -> tuple[int, int, int]:
    value = properties.get("openslide.background-color", "")
    rgb = bytes.fromhex(value) if len(value) == 6 else b"\xff\xff\xff"
    return rgb[0], rgb[1], rgb[2]


def _refuse_fluorescence(path: str, properties: Mapping[str, str]) -> None:
    """Stop at slides that name another illumination (Leica, MIRAX); other vendors do not say."""
    for key, value in properties.items():
        if key.lower().endswith(("illumination-source", "slide_type")) and "fluor" in value.lower():
            raise UnsupportedSlide(f"{path} is a fluorescence slide ({key} = {value}); expected brightfield")
