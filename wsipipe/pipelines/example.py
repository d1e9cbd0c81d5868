"""The story of `wsipipe example-slide`: a small public slide loaded, with its checksum; cut short, it goes on."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsipipe._version import __version__
from wsipipe.artifacts import check_writable
from wsipipe.artifacts.system import flush_file, replace
from wsipipe.errors import OutputError, UnreadableSlide
from wsipipe.runs import acquire

NAME = "CMU-1-Small-Region.svs"
URL = f"https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/{NAME}"
"""Of OpenSlide's freely distributable test data: Aperio SVS, JPEG, 2220 x 2967 px at 0.499 µm/px, skin; CC0."""
SIZE, SHA256 = 1_938_955, "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
SECONDS = 30
"""Without a byte for so long, the connection counts as lost."""
PIECE = 1 << 16

Progress = Callable[[int], None]
"""Called with the number of bytes that are there."""


def download_example(out: Path, url: str = URL, progress: Progress = lambda done: None) -> bool:
    """Download the example slide to *out*; return False when it was there already, whole.

    Parameters
    ----------
    out : Path
        A file, or a folder that it goes into under its own name (see :func:`named`).
    url : str
        Where it comes from; the checksum is the same for any mirror. ``file:`` takes a copy.

    Raises
    ------
    OutputError
        When something else stands at *out*, or nothing can be written there.
    UnreadableSlide
        When it cannot be downloaded, or is not the slide that was asked for. What came is kept, and goes on.
    """
    out = named(out)
    if out.exists():
        if checksum(out) == SHA256:
            return False
        raise OutputError(f"cannot write {out}: another file stands there; remove it or give another name")
    check_writable(out)
    with acquire(out):
        part = out.with_name(f".{out.name}.part")
        try:
            _fetch(url, part, progress)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnreadableSlide(_refusal(url, out, error)) from error
        if checksum(part) != SHA256:
            part.unlink()
            raise UnreadableSlide(f"{url} gave another file than {NAME} (its SHA-256 differs); try --url with a mirror")
        flush_file(part)
        replace(part, out)
    return True


def named(out: Path) -> Path:
    """Return the file that *out* means: in a folder it has its own name."""
    return out / NAME if out.is_dir() or os.fspath(out).endswith(("/", os.sep)) else out


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Append to *part* what it lacks of *url*; a server that cannot continue begins anew."""
    there = part.stat().st_size if part.exists() else 0
    if there >= SIZE:
        part.unlink()
        there = 0
    headers = {"User-Agent": f"wsipipe/{__version__}"} | ({"Range": f"bytes={there}-"} if there else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS) as answer:
        continued = getattr(answer, "status", None) == http.HTTPStatus.PARTIAL_CONTENT
        _append(answer, part, there if continued else 0, progress)


def _append(answer: Any, part: Path, there: int, progress: Progress) -> None:
    with part.open("r+b" if there else "wb") as file:
        file.seek(there)
        progress(there)
        while piece := answer.read(PIECE):
            there += len(piece)
            if there > SIZE:  # a page that says "log in", say
                break
            file.write(piece)
            progress(there)
    if there < SIZE:
        raise http.client.IncompleteRead(b"", SIZE - there)


def _refusal(url: str, out: Path, error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return f"{url} ended early, {error.expected:,} bytes are lacking; the same command goes on from there"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    told = getattr(reason, "strerror", None) or str(reason)
    why = f"the server answered {error.code}" if isinstance(error, urllib.error.HTTPError) else told
    return (
        f"cannot download {url}: {' '.join(str(why).split())}; without a connection copy the file to {out} from "
        "elsewhere, or draw a slide: wsipipe demo-slide demo.tiff"
    )
