"""The one door to a master file: whoever reads one has it checked first, whole, once.

What comes from elsewhere may be cut, flipped or edited. Behind this door columns, types, every byte (by a digest),
outlines and metadata are as :mod:`wsipipe.formats.parquet` writes them, so that nobody else has to ask.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import OrderedDict
from functools import lru_cache
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from wsipipe.artifacts import from_json
from wsipipe.artifacts.plain import refuse_special
from wsipipe.errors import StoreError, in_words
from wsipipe.formats.content import about_of, check_rows, check_schema, expect
from wsipipe.formats.exports import file_endings

SEAL, OPEN = "digest", "0" * 64
"""Key of the metadata that holds the SHA-256 of the file, and what stands in its place while that is computed."""
KEPT = 64
"""Files whose state is remembered."""


def seal(file: IO[bytes]) -> None:
    """Put the digest of a finished master file, whose metadata has :data:`OPEN` under :data:`SEAL`, in its place."""
    place = _place(file, OPEN)
    found = _digest(file, place)
    file.seek(place)
    file.write(found)


def _place(file: IO[bytes], value: str) -> int:
    """Return where the digest *value* stands in the metadata at the end of *file*."""
    end = file.seek(-8, os.SEEK_END)
    start = file.seek(max(0, end - int.from_bytes(file.read(4), "little")))
    return start + max(0, file.read().find(f'"{SEAL}":"{value}"'.encode())) + len(SEAL) + 4


def _digest(file: IO[bytes], place: int) -> bytes:
    """Return the digest of *file*, in hexadecimal, with nothing but zeros at *place*."""
    file.seek(0)
    sha, left = hashlib.sha256(), place
    while left and (piece := file.read(min(left, 1 << 22))):
        sha.update(piece)
        left -= len(piece)
    sha.update(file.read(len(OPEN)) and OPEN.encode())
    while piece := file.read(1 << 22):
        sha.update(piece)
    return sha.hexdigest().encode()


def check_master(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a master file says of itself, after a look at all that is in it.

    Raises
    ------
    StoreError
        When *path* is not a master file of wsipipe, or not as it was written.
    """
    name = os.fspath(path)
    _refuse_export(name)
    try:
        refuse_special(name)
        stamp = _stamp(name)
        raw = _WRITTEN.get(stamp) or _checked(name, stamp)
    except (OSError, UnicodeError, pa.ArrowException, shapely.errors.ShapelyError) as error:
        reason = in_words(error)
        raise StoreError(f"{name} is not a cells file, or it is damaged: {reason}; copy it again") from error
    about: dict[str, Any] = from_json(raw)
    return about


def digest_of(path: str | os.PathLike[str]) -> str:
    """Return the digest that a master file states of itself; "" of one that was written before there was any.

    Raises
    ------
    StoreError
    """
    check_master(path)
    found = about_of((pq.read_metadata(path).metadata or {})[b"wsipipe"], os.fspath(path)).get(SEAL, "")
    return str(found)


def _refuse_export(name: str) -> None:
    """Say what to give in place of a file that was made of a cells file, by its ending."""
    ending = next((end for end in (*file_endings(), ".html") if end != ".parquet" and name.lower().endswith(end)), None)
    if ending is None or not os.path.isfile(name):
        return
    beside = name[: -len(ending)] + ".parquet"
    hint = f"give {beside}" if os.path.isfile(beside) else "give the .parquet of the same run"
    if ending.startswith(".geojson"):
        hint += f", or make one of it: `wsipipe measure {name} --slide SLIDE -o cells.parquet`"
    raise StoreError(f"{name} is not a cells file (.parquet) but {ending[1:]}; {hint}")


Stamp = tuple[int, int, int, int]
_WRITTEN: OrderedDict[Stamp, bytes] = OrderedDict()
"""Metadata, in JSON, of the files that this process has written, by what tells a file and its state."""


def vouch(path: str | os.PathLike[str]) -> None:
    """Note that this process has just written and sealed the file at *path*: it need not be looked at again.

    It gets a time that is finer than what a file system notes, so that no change however soon has the same one.
    """
    name, now = os.fspath(path), time.time_ns()
    with contextlib.suppress(OSError):
        os.utime(name, ns=(now, now))
        _WRITTEN[_stamp(name)] = _stated((pq.read_metadata(name).metadata or {})[b"wsipipe"], name)
        while len(_WRITTEN) > KEPT:
            _WRITTEN.popitem(last=False)


def _stamp(path: str) -> Stamp:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _stated(raw: bytes, path: str) -> bytes:
    """Return what metadata say of a file, without its digest."""
    return json.dumps({key: value for key, value in about_of(raw, path).items() if key != SEAL}).encode()


@lru_cache(maxsize=KEPT)
def _checked(path: str, _stamp: Stamp) -> bytes:
    """Return the metadata, in JSON, of a file that passes."""
    with pq.ParquetFile(path) as file:
        raw = (file.metadata.metadata or {}).get(b"wsipipe")
        if raw is None:
            raise StoreError(f"{path} is Parquet, but not a cells file of wsipipe (no 'wsipipe' metadata)")
        about = about_of(raw, path)
        if SEAL in about:
            with open(path, "rb") as stream:
                found = _digest(stream, _place(stream, about[SEAL])).decode()
            expect(about[SEAL] == found, path, "the digest", found, str(about[SEAL]))
        check_schema(file.schema_arrow, path)
        expect(about["cells"] == file.metadata.num_rows, path, "cells", about["cells"], f"{file.metadata.num_rows}")
        for i in range(file.metadata.num_row_groups):
            check_rows(file.read_row_group(i), about, f"{path}, row group {i}")
    return _stated(raw, path)
