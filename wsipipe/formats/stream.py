"""Text written in pieces: JSON items with commas between them, and gzip whose bytes depend on the text alone.

Gzip is made by libdeflate, which takes half the time of zlib and makes smaller files, but packs what it is given at
once: so the text is cut into members of a fixed size, which every reader of gzip takes for one file.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import imagecodecs

GZIP_LEVEL = 1
MEMBER = 1 << 22
"""Bytes of text in each member of a gzip file."""


class Writable(Protocol):
    """What takes bytes."""

    def write(self, data: bytes, /) -> Any:
        """Take *data*."""


@contextlib.contextmanager
def opened(path: Path, compressed: bool) -> Iterator[Writable]:
    """Open *path* for writing; compressed, its bytes depend on the text alone (no name, no time)."""
    with path.open("wb") as file:
        if not compressed:
            yield file
            return
        gzip = _Gzip(file)
        yield gzip
        gzip.finish()


def separated(items: Iterator[bytes], most: int = 1000) -> Iterator[bytes]:
    """Yield *items* joined by commas and line ends, up to *most* at a time."""
    comma = b""
    while many := list(itertools.islice(items, most)):
        yield comma + b",\n".join(many)
        comma = b",\n"


class _Gzip:
    """Gzip without a name or time in its header."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._held, self._members = file, bytearray(), 0

    def write(self, data: bytes, /) -> None:
        self._held += data
        while len(self._held) >= MEMBER:
            self._pack(MEMBER)

    def finish(self) -> None:
        if self._held or not self._members:
            self._pack(len(self._held))

    def _pack(self, size: int) -> None:
        self._file.write(imagecodecs.gzip_encode(bytes(self._held[:size]), level=GZIP_LEVEL))
        del self._held[:size]
        self._members += 1
