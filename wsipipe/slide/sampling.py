"""A slide's fingerprint: equal for copies of a file, different for different slides, quick on hundreds of gigabytes.

Samples miss a change between them; size and time of the file (:func:`stamp`) tell of it. No result depends on those.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from wsipipe.errors import SlideChanged, SlideNotFound, UnreadableSlide, WsipipeError
from wsipipe.slide.dicomweb import is_dicomweb, series_digest
from wsipipe.slide.remote import Blocks, is_url, remote_size

ENDS = 1 << 16
"""Bytes hashed at the head, at the tail and from the first TIFF directory on."""
SAMPLES, SAMPLE = 64, 1 << 12
"""Evenly spaced samples, and bytes in each."""


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 (hex) of a slide's size, headers and sampled bytes; never of times or names of folders.

    Parameters
    ----------
    path : path or URL
        A file (for ``.mrxs`` with the data folder beside it), or a folder of DICOM instances: then over its files,
        sorted by name. Of a DICOMweb series the identities and sizes of its instances.

    Raises
    ------
    SlideNotFound, UnreadableSlide
        When the file is missing or cannot be read.
    """
    location = os.fspath(path)
    if is_dicomweb(location):
        return series_digest(location)
    digest = hashlib.sha256(b"wsipipe slide fingerprint 1")
    try:
        for name, part in _parts(location):
            with Blocks(part, keep=False) if is_url(part) else open(part, "rb") as file:
                digest.update(name.encode() + b"\0")
                for piece in _pieces(file):
                    digest.update(piece)
    except WsipipeError:
        raise
    except FileNotFoundError as error:
        raise SlideNotFound(f"no such slide: {location}") from error
    except (OSError, ValueError) as error:
        raise UnreadableSlide(f"cannot read {location}: {getattr(error, 'strerror', None) or error}") from error
    return digest.hexdigest()


class Stamp(NamedTuple):
    """Bytes of a slide's files, and when they were last changed, in ns since 1970 (0 where it is not known)."""

    bytes: int
    modified_ns: int


def stamp(path: str | os.PathLike[str]) -> Stamp:
    """Return size and time of the files that :func:`fingerprint` samples; of a URL the size alone.

    Raises
    ------
    SlideNotFound, UnreadableSlide
    """
    location = os.fspath(path)
    try:
        if is_dicomweb(location):
            return Stamp(0, 0)
        if is_url(location):
            return Stamp(remote_size(location), 0)
        found = [os.stat(part) for _, part in _parts(location)]
    except WsipipeError:
        raise
    except FileNotFoundError as error:
        raise SlideNotFound(f"no such slide: {location}") from error
    except OSError as error:
        raise UnreadableSlide(f"cannot read {location}: {error.strerror or error}") from error
    return Stamp(sum(s.st_size for s in found), max((s.st_mtime_ns for s in found), default=0))


def check_same(path: str | os.PathLike[str], known: str, was: Stamp) -> None:
    """Raise SlideChanged unless the slide at *path* has the fingerprint *known*, and the stamp that it had."""
    now = stamp(path)
    if now != was or fingerprint(path) != known:
        raise changed(os.fspath(path), was, now)


def changed(path: str, was: Stamp | None = None, now: Stamp | None = None) -> SlideChanged:
    """Return the error for a slide that was replaced, or written to, while it was read."""
    how = "" if was is None or now is None else f" ({was.bytes:,} bytes before, {now.bytes:,} now)"
    return SlideChanged(
        f"{path} changed while it was read{how}; nothing was written: run the same command again when the file is whole"
    )


def refuse_special(path: Path) -> None:
    """Raise UnreadableSlide for a pipe, socket or device, on which a reader would wait for ever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UnreadableSlide(f"cannot open {path}: it is a pipe, socket or device; expected a slide file")


def _parts(location: str) -> Iterator[tuple[str, str]]:
    """Yield (name inside the slide, path) of every file of a slide."""
    if is_url(location):
        yield "", location
        return
    path = Path(location)
    refuse_special(path)
    folder = path if path.is_dir() else path.with_suffix("") if path.suffix.lower() == ".mrxs" else None
    if folder is not path:
        yield "", location
    if folder is not None and folder.is_dir():
        yield from ((p.name, str(p)) for p in sorted(folder.iterdir()) if p.is_file())


def _pieces(file: IO[Any] | Blocks) -> Iterator[bytes]:
    size = file.seek(0, os.SEEK_END)
    yield struct.pack("<Q", size)
    if size <= 4 * ENDS:
        yield _at(file, 0, size)
        return
    head = _at(file, 0, ENDS)
    yield head
    yield _at(file, size - ENDS, ENDS)
    yield _at(file, min(_first_directory(head), size), ENDS)
    for i in range(SAMPLES):
        yield _at(file, i * (size - SAMPLE) // (SAMPLES - 1), SAMPLE)


def _at(file: IO[Any] | Blocks, offset: int, count: int) -> bytes:
    file.seek(offset)
    data: bytes = file.read(count)
    return data


def _first_directory(head: bytes) -> int:
    """Return the offset of the first directory of a TIFF or BigTIFF, 0 for other files."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return 0
    (magic,) = struct.unpack(order + "H", head[2:4])
    if magic == 43:
        return int(struct.unpack(order + "Q", head[8:16])[0])
    return int(struct.unpack(order + "I", head[4:8])[0]) if magic == 42 else 0
