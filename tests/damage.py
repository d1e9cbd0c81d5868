"""Damage done to TIFF slides: tiles that do not decode, directories that say something else."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tifffile import TiffFile

IMAGE_LENGTH, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS = 257, 322, 323, 324, 325


def pages(path: Path) -> list[Any]:
    """Return the pages of the pyramid, finest first."""
    with TiffFile(path) as tiff:
        return sorted((page for page in tiff.pages if page.is_tiled), key=lambda page: -page.imagewidth)


def spoil_level(path: Path, level: int, wanted: Callable[[int], bool] = lambda index: True) -> None:
    """Overwrite the data of those tiles of *level* that no finer level shares; *wanted* chooses by number."""
    all_pages = pages(path)
    finer = {offset for page in all_pages[:level] for offset in page.dataoffsets}
    page = all_pages[level]
    with path.open("r+b") as file:
        for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            if offset not in finer and wanted(index):
                file.seek(offset)
                file.write(b"\xaa" * count)


def set_tag(path: Path, level: int, tag: int, values: list[int]) -> None:
    """Write other *values* (64 bits each) for a tag of *level* that the directory has."""
    page = pages(path)[level]
    with path.open("r+b") as file:
        file.seek(page.tags[tag].valueoffset)
        file.write(struct.pack(f"<{len(values)}Q", *values))


def set_number(path: Path, level: int, tag: int, value: int) -> None:
    """Write another number for a tag of *level* that holds one, in as many bytes as it has."""
    found = pages(path)[level].tags[tag]
    with path.open("r+b") as file:
        file.seek(found.valueoffset)
        file.write(value.to_bytes({3: 2, 4: 4, 16: 8}[int(found.dtype)], "little"))
