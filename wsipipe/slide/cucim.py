"""Slides through cuCIM's CPU reader (extra ``cucim``): SVS, Philips TIFF and generic tiled TIFF, decoded fast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from cucim import CuImage
from numpy.typing import NDArray
from tifffile import TiffFile, TiffFileError

from wsipipe.errors import FAILURES, UnsupportedSlide
from wsipipe.slide.protocol import SlideInfo
from wsipipe.slide.reader import Reader, pyramid
from wsipipe.slide.resolution import choose_mpp, number, pair, tiff_mpp
from wsipipe.slide.tiff_tiles import Placed, missing_as_alpha, parts_held
from wsipipe.units import Pair


class Handle(NamedTuple):
    """An open cuCIM image, and tifffile's view of the same file, which knows of missing and damaged tiles."""

    image: Any
    tiff: TiffFile


class CucimReader(Reader[Handle]):
    """A slide opened by cuCIM."""

    name = "cucim"
    failures = (*FAILURES, TiffFileError)

    def _open(self) -> Handle:
        tiff = TiffFile(self._path)
        try:
            return Handle(CuImage(self._path), tiff)
        except BaseException:
            tiff.close()
            raise

    def _describe(self, opened: Handle) -> SlideInfo:
        handle = opened.image
        if handle.dims != "YXC" or handle.typestr != "|u1" or handle.shape[2] not in (3, 4):
            raise UnsupportedSlide(
                f"{self._path} holds {handle.typestr} pixels of {handle.dims} {handle.shape}; expected 8-bit RGB"
            )
        metadata = handle.metadata
        vendor = next((v for v in ("aperio", "philips") if v in metadata), "generic-tiff")
        objective = number(metadata.get("aperio", {}).get("AppMag"))
        tags = metadata.get("tiff", {})
        tiff = tiff_mpp(tags.get("x_resolution"), tags.get("y_resolution"), tags.get("resolution_unit"))
        mpp, source = choose_mpp(_vendor_mpp(metadata), tiff, objective)
        return SlideInfo(
            path=self._path,
            backend=self.name,
            levels=pyramid([(int(w), int(h)) for w, h in handle.resolutions["level_dimensions"]]),
            mpp=mpp,
            mpp_source=source,
            objective=objective,
            vendor=vendor,
        )

    def _read(self, handle: Handle, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        downsample = handle.image.resolutions["level_downsamples"][level]
        location = math.ceil(x * downsample), math.ceil(y * downsample)
        page, box = handle.tiff.series[0].levels[level].pages[0], (x, y, x + width, y + height)
        held = parts_held(handle.tiff, [Placed(page, (0, 0))], box)
        pixels = np.asarray(handle.image.read_region(location, (width, height), level))
        return missing_as_alpha(held, box, pixels)

    def _release(self, handle: Handle) -> None:
        handle.image.close()
        handle.tiff.close()


def _vendor_mpp(metadata: Mapping[str, Any]) -> Pair | None:
    """Return µm/px of Aperio's MPP or Philips' pixel spacing (mm, row spacing first)."""
    aperio = metadata.get("aperio", {}).get("MPP")
    if aperio is not None:
        return pair(aperio, aperio)
    spacing = list(metadata.get("philips", {}).get("DICOM_PIXEL_SPACING") or [])
    mm = pair(spacing[1], spacing[0]) if len(spacing) == 2 else None
    return None if mm is None else (mm[0] * 1000, mm[1] * 1000)
