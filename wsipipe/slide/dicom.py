"""DICOM whole-slide images through wsidicom (extra ``dicom``): a folder of instances, or one of its files."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from wsidicom import WsiDicom
from wsidicom import errors as wsidicom_errors

from wsipipe.errors import FAILURES, UnsupportedSlide
from wsipipe.slide.protocol import SlideInfo
from wsipipe.slide.reader import Reader, pyramid
from wsipipe.slide.resolution import choose_mpp, number

DICOM_FAILURES: tuple[type[Exception], ...] = (
    *FAILURES,
    InvalidDicomError,
    *(e for e in vars(wsidicom_errors).values() if isinstance(e, type) and issubclass(e, Exception)),
)


class DicomReader(Reader[WsiDicom]):
    """A slide opened by wsidicom."""

    name = "dicom"
    failures = DICOM_FAILURES

    def _open(self) -> WsiDicom:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom remarks on values that break the standard and reads on
            return WsiDicom.open(_instances(Path(self._path)))

    def _describe(self, handle: WsiDicom) -> SlideInfo:
        base = handle.levels[0]
        if len(base.focal_planes) > 1:
            raise UnsupportedSlide(f"{self._path} holds {len(base.focal_planes)} focal planes; expected one")
        if len(base.optical_paths) > 1 or base.default_instance.dataset.samples_per_pixel != 3:
            raise UnsupportedSlide(
                f"{self._path} holds {len(base.optical_paths)} optical path(s) of "
                f"{base.default_instance.dataset.samples_per_pixel} sample(s), as fluorescence does; expected RGB"
            )
        objective = _objective(base.default_instance.dataset.as_dataset())
        mpp, source = choose_mpp((base.mpp.width, base.mpp.height), None, objective)
        return SlideInfo(
            path=self._path,
            backend=self.name,
            levels=pyramid([(level.size.width, level.size.height) for level in handle.levels]),
            mpp=mpp,
            mpp_source=source,
            objective=objective,
            vendor="dicom",
        )

    def _read(self, handle: WsiDicom, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        # wsidicom numbers levels by the power of two; a file may leave some out. Locations are in that level's pixels.
        exponent = handle.levels[level].level
        return np.asarray(handle.read_region((x, y), exponent, (width, height), as_array=True))

    def _release(self, handle: WsiDicom) -> None:
        handle.close()


def _instances(path: Path) -> list[Path]:
    """Return the files of a folder, or those beside a file that are of its series: each level is its own file."""
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.is_file())
    series = _series(path)
    if series is None:
        raise InvalidDicomError("not a DICOM file, or its header is damaged")
    return [p for p in sorted(path.parent.iterdir()) if p == path or (p.suffix == path.suffix and _series(p) == series)]


def _series(path: Path) -> str | None:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    except DICOM_FAILURES:
        return None
    return str(header.get("SeriesInstanceUID", "")) or None


def _objective(dataset: pydicom.Dataset) -> float | None:
    paths = dataset.get("OpticalPathSequence") or []
    return number(paths[0].get("ObjectiveLensPower")) if len(paths) else None
