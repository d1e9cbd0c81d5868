"""DICOM slides through wsidicom (extra ``dicom``): a folder of instances, one of its files, or a DICOMweb series."""

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
from wsipipe.slide.dicomweb import open_series
from wsipipe.slide.planes import names_of, plane_of
from wsipipe.slide.protocol import SlideInfo
from wsipipe.slide.reader import Reader, pyramid
from wsipipe.slide.remote import is_url
from wsipipe.slide.resolution import choose_mpp, number

DICOM_FAILURES: tuple[type[Exception], ...] = (
    *FAILURES,
    InvalidDicomError,
    *(e for e in vars(wsidicom_errors).values() if isinstance(e, type) and issubclass(e, Exception)),
)


END = b"\xfe\xff\xdd\xe0"
"""What ends a sequence of compressed frames."""
TAIL = 1 << 20
"""Bytes at the end of a file in which it must be; little may follow the pixels."""


class DicomReader(Reader[WsiDicom]):
    """A slide opened by wsidicom."""

    name = "dicom"
    failures = DICOM_FAILURES

    def _open(self) -> WsiDicom:
        if is_url(self._path):
            return open_series(self._path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom remarks on values that break the standard and reads on
            instances = _instances(Path(self._path))
            for path in instances:
                _refuse_cut(path)
            return WsiDicom.open(instances)

    def _describe(self, handle: WsiDicom) -> SlideInfo:
        base = handle.levels[0]
        heights = sorted(base.focal_planes)
        planes = names_of(heights)
        plane = plane_of(self._path, self._settings.plane, planes)
        self._height_um = heights[min(plane, len(heights) - 1)]
        levels = [level for level in handle.levels if self._height_um in level.focal_planes]
        self._exponents = [level.level for level in levels]
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
            levels=pyramid([(level.size.width, level.size.height) for level in levels]),
            mpp=mpp,
            mpp_source=source,
            objective=objective,
            vendor="dicom",
            planes=planes,
            plane=plane,
        )

    def _read(self, handle: WsiDicom, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        # wsidicom numbers levels by the power of two; a file may leave some out. Locations are in that level's pixels.
        where = (x, y), self._exponents[level], (width, height)
        return np.asarray(handle.read_region(*where, z=self._height_um, as_array=True))

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


def _refuse_cut(path: Path) -> None:
    """Refuse an instance of compressed frames whose end is missing: decoders fill the rest of the last one with grey.

    Raises
    ------
    ValueError
    """
    try:
        meta = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"]).file_meta
        compressed = meta.TransferSyntaxUID.is_compressed
    except DICOM_FAILURES:
        return
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        if compressed and END not in file.read():
            raise ValueError(f"{path.name} is cut short: the end of its pixels is missing; copy it again")


def _series(path: Path) -> str | None:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    except DICOM_FAILURES:
        return None
    return str(header.get("SeriesInstanceUID", "")) or None


def _objective(dataset: pydicom.Dataset) -> float | None:
    paths = dataset.get("OpticalPathSequence") or []
    return number(paths[0].get("ObjectiveLensPower")) if len(paths) else None
