"""Copies of the next slides on a fast local disk, made while others are segmented."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import fsspec  # type: ignore[import-untyped]

from wsipipe.artifacts import read_json, write_json
from wsipipe.errors import OutputError
from wsipipe.runs import Holder
from wsipipe.slide import Stamp, changed, fingerprint, stamp
from wsipipe.slide.dicomweb import is_dicomweb

SCATTERED = (".vms", ".vmu", ".dcm")
"""Slides of several files that lie loose beside others; they are read where they are."""


class Stager:
    """Copies slides, in order, as long as the copies fit the limit; each goes when it is dropped.

    Parameters
    ----------
    folder : Path
        On the local disk. The copies are in a folder of this process inside it.
    limit : int
        Bytes of copies at a time.
    sources : sequence of str
        Slides in the order in which they will be asked for.
    wanted : callable
        Whether a source will be read at all; asked from another thread.
    say : callable
        Hears why a slide is read where it is.
    """

    def __init__(
        self,
        folder: Path,
        limit: int,
        sources: Sequence[str],
        wanted: Callable[[int], bool],
        say: Callable[[str], None],
    ) -> None:
        self.limit, self.sources, self.wanted, self.say = limit, sources, wanted, say
        self.place = folder / f"wsipipe-{os.getpid()}-{secrets.token_hex(4)}"
        self._copies: list[Future[str]] = [Future() for _ in sources]
        self._sizes: dict[int, int] = {}
        self._stamps: dict[int, Stamp] = {}
        self._room = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._copy_all, name="staging", daemon=True)

    def __enter__(self) -> Self:
        try:
            _clean(self.place.parent)
            self.place.mkdir(parents=True)
            write_json(self.place / "holder.json", asdict(Holder.me()))
        except OSError as error:
            raise OutputError(f"--stage {self.place.parent}: cannot write there ({error.strerror or error})") from error
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._room:
            self._closed = True
            self._room.notify_all()
        shutil.rmtree(self.place, ignore_errors=True)

    def path(self, index: int) -> str:
        """Return where slide *index* is to be read: its copy, or "" for where it is. Waits for the copy.

        Raises
        ------
        SlideChanged
            When the original is not any more what was copied.
        """
        copy, source = self._copies[index].result(), self.sources[index]
        if copy and (now := stamp(source)) != self._stamps[index]:
            raise changed(source, self._stamps[index], now)
        return copy

    def drop(self, index: int) -> None:
        """Remove the copy of slide *index*, and make room for the next."""
        shutil.rmtree(self.place / str(index), ignore_errors=True)
        with self._room:
            self._sizes.pop(index, None)
            self._room.notify_all()

    def _copy_all(self) -> None:
        for index, copy in enumerate(self._copies):
            path = ""
            try:
                if not self._closed and self.wanted(index):
                    path = self._copy(index)
            except OSError as error:
                self.say(f"{self.sources[index]}: read where it is ({error.strerror or error})")
                self.drop(index)
            finally:
                copy.set_result(path)

    def _copy(self, index: int) -> str:
        """Return the copy of slide *index*, "" where there is none; waits for room."""
        source = self.sources[index]
        files = _files(source)
        size = sum(_size(file) for file in files)
        if not files or size > self.limit:
            self.say(f"{source}: read where it is ({'several files' if not files else 'larger than --stage-gb'})")
            return ""
        with self._room:
            self._room.wait_for(lambda: self._closed or sum(self._sizes.values()) + size <= self.limit)
            if self._closed:
                return ""
            self._sizes[index] = size
        self._stamps[index] = stamp(source)
        target = self.place / str(index)
        target.mkdir()
        for file in files:
            _copy(file, target / Path(file).name)
        copy = target / Path(files[0]).name
        if fingerprint(copy) != fingerprint(source):
            raise OSError(None, "its copy differs: it changed, or the disk is faulty")
        return str(copy)


def _files(source: str) -> list[str]:
    """Return the files and folders that make a slide, the one to open first; none when they cannot be told."""
    path = Path(source)
    if is_dicomweb(source):
        return []
    if path.suffix.lower() in SCATTERED and not path.is_dir():
        return []
    beside = path.with_suffix("")
    return [source, *([str(beside)] if path.suffix.lower() == ".mrxs" and beside.is_dir() else [])]


def _size(file: str) -> int:
    if "://" in file:
        with fsspec.open(file, "rb") as stream:
            return int(stream.seek(0, os.SEEK_END))
    path = Path(file)
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def _copy(file: str, target: Path) -> None:
    if "://" in file:
        with fsspec.open(file, "rb") as stream, target.open("wb") as out:
            shutil.copyfileobj(stream, out, 1 << 22)
    elif os.path.isdir(file):
        shutil.copytree(file, target)
    else:
        shutil.copyfile(file, target)


def _clean(folder: Path) -> None:
    """Remove what processes that have died left in *folder*."""
    for place in folder.glob("wsipipe-*") if folder.is_dir() else ():
        with contextlib.suppress(TypeError):
            if Holder(**read_json(place / "holder.json")).is_dead:
                shutil.rmtree(place, ignore_errors=True)
