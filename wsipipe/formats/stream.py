"""Text written in pieces: JSON items with commas between them, and gzip whose bytes depend on the text alone."""

from __future__ import annotations

import contextlib
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

GZIP_LEVEL = 1


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
        self._file, self._zlib = file, zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31, 9)

    def write(self, data: bytes, /) -> None:
        self._file.write(self._zlib.compress(data))

    def finish(self) -> None:
        self._file.write(self._zlib.flush())
