"""Stacks of focal planes, written in the ways of several scanners."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
BLURS = (4.0, 1.5, 0.0, 2.5)
"""Sigma in pixels of each plane; the third is sharp."""
STEP_UM = 2.0
INTERVAL = 16
"""Macroblocks of 8 px between the restart markers of an NDPI page."""


def planes(picture: Pixels) -> list[Pixels]:
    """Return *picture* at each focus."""
    return [picture if not s else np.asarray(cv2.GaussianBlur(picture, (0, 0), s), np.uint8) for s in BLURS]


def halved(picture: Pixels) -> Pixels:
    return np.asarray(cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def write_ome(path: Path, stack: list[Pixels], mpp: float = 0.5) -> None:
    """Write an OME-TIFF of two levels."""
    metadata = {"axes": "ZYXS", "PhysicalSizeX": mpp, "PhysicalSizeY": mpp, "PhysicalSizeZ": STEP_UM}
    options: dict[str, Any] = {"photometric": "rgb", "tile": (256, 256), "compression": "deflate"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(np.stack(stack), subifds=1, metadata=metadata, **options)
        tiff.write(np.stack([halved(plane) for plane in stack]), subfiletype=1, **options)


def write_czi(path: Path, stack: list[Pixels], mpp: float = 0.5) -> None:
    """Write a CZI (needs pylibCZIrw)."""
    from pylibCZIrw import czi

    with czi.create_czi(str(path)) as file:
        for z, plane in enumerate(stack):
            where = {"C": 0} if len(stack) == 1 else {"C": 0, "Z": z}
            file.write(np.ascontiguousarray(plane[..., ::-1]), plane=where, location=(-64, 32))
        file.write_metadata("stack", scale_x=mpp * 1e-6, scale_y=mpp * 1e-6, scale_z=STEP_UM * 1e-6)


def write_ndpi(path: Path, stack: list[Pixels], heights_nm: list[int], mpp: float = 0.5) -> None:
    """Write an NDPI as Hamamatsu's scanners do: a JPEG with restart markers for each plane and level, a macro image."""
    pages: list[tuple[Pixels, float, int]] = []
    for plane, height in zip(stack, heights_nm, strict=True):
        pages += [(plane, 20.0, height), (halved(plane), 10.0, height)]
    pages.append((stack[0][:64, :128], -1.0, 0))
    with path.open("wb") as file:
        file.write(b"II*\0" + struct.pack("<Q", 0))
        pointer = 4
        for rgb, lens, height in pages:
            pointer = _ndpi_page(file, pointer, rgb, lens, height, mpp * 20 / lens)


def _ndpi_page(file: Any, pointer: int, rgb: Pixels, lens: float, height: int, mpp: float) -> int:
    """Append a page, have *pointer* point at it, and return where its own pointer to the next is."""
    jpeg, starts = _with_restarts(rgb)
    at, made = file.seek(0, io.SEEK_END), file.write(jpeg)
    starts_at = file.tell()
    file.write(struct.pack(f"<{len(starts)}I", *starts))
    make_at = file.tell()
    file.write(b"Hamamatsu\0")
    per_cm_at = file.tell()
    file.write(struct.pack("<II", round(1e7 / abs(mpp)), 1000))
    bits_at = file.tell()
    file.write(struct.pack("<HHH", 8, 8, 8))
    ifd = file.tell()
    tags = [
        *((256, 4, 1, rgb.shape[1]), (257, 4, 1, rgb.shape[0]), (258, 3, 3, bits_at), (259, 3, 1, 7), (262, 3, 1, 6)),
        *((271, 2, 10, make_at), (273, 4, 1, at), (277, 3, 1, 3), (278, 4, 1, rgb.shape[0]), (279, 4, 1, made)),
        *((282, 5, 1, per_cm_at), (283, 5, 1, per_cm_at), (284, 3, 1, 1), (296, 3, 1, 3), (65420, 4, 1, 1)),
        (65421, 11, 1, struct.unpack("<I", struct.pack("<f", lens))[0]),
        (65424, 9, 1, height & 0xFFFFFFFF),
        (65426, 4, len(starts), starts_at),
    ]
    file.write(struct.pack("<H", len(tags)))
    for tag in tags:
        file.write(struct.pack("<HHII", *tag))
    following = file.tell()
    file.write(struct.pack("<Q", 0) + bytes(4 * len(tags)))
    file.seek(pointer)
    file.write(struct.pack("<Q", ifd))
    return following


def _with_restarts(rgb: Pixels) -> tuple[bytes, list[int]]:
    """Return a JPEG of *rgb* and where the data between its restart markers begin."""
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=95, subsampling=0, restart_marker_blocks=INTERVAL)
    jpeg = out.getvalue()
    scan = jpeg.index(b"\xff\xda")
    first = scan + 2 + struct.unpack(">H", jpeg[scan + 2 : scan + 4])[0]
    body = np.frombuffer(jpeg, np.uint8)[first:]
    markers = np.flatnonzero((body[:-1] == 0xFF) & (body[1:] >= 0xD0) & (body[1:] <= 0xD7))
    return jpeg, [first, *(first + int(m) + 2 for m in markers)]
