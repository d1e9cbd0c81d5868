"""Slides that lie elsewhere: ``https://``, ``s3://``, ``gs://``, ``az://`` and whatever else fsspec knows.

Only the blocks that are read are fetched. Those seen last are kept in memory, up to 128 MiB for each open slide. A
block that does not come is asked for again before it counts as unreadable.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeVar

import fsspec  # type: ignore[import-untyped]

from wsipipe.errors import MissingDependency, SlideNotFound, UnreadableSlide, WsipipeError

BLOCK, BLOCKS = 1 << 19, 256
"""Bytes of a block, and blocks that are kept for each open slide."""
PAUSES = (0.5, 2.0)
"""Seconds before a block is asked for again."""
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}
FOREIGN = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
)
"""Errors of the libraries below fsspec that are no OSError."""
CREDENTIALS = {
    "s3fs": "give AWS_PROFILE or AWS_ACCESS_KEY_ID, or FSSPEC_S3_ANON=true for a public bucket",
    "gcsfs": "give GOOGLE_APPLICATION_CREDENTIALS, or FSSPEC_GS_TOKEN=anon for a public bucket",
    "adlfs": "give AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "aiohttp": "the address needs a login or a key in it (a presigned URL)",
}

T = TypeVar("T")


def is_url(path: str) -> bool:
    """Whether *path* is a URL rather than a local path."""
    return "://" in path


def remote_needs(url: str) -> MissingDependency:
    """Return the error that says which package reads *url*."""
    return MissingDependency.of(_package(url), "remote", f"reading {_scheme(url)}:// slides")


def remote_size(url: str) -> int:
    """Return the bytes of the file at *url*; errors as :class:`Blocks`."""
    with in_wsipipes_words(url):
        system, name = fsspec.core.url_to_fs(url)
        return int(system.size(name) or 0)


class Blocks:
    """A file at a URL, open for reading anywhere in it. For one thread at a time.

    Parameters
    ----------
    url : str
    keep : bool
        Whether blocks are kept for later; otherwise exactly what is asked for is fetched.

    Raises
    ------
    SlideNotFound, UnreadableSlide, MissingDependency
        When it cannot be opened, or its server gives files only as a whole.
    OSError
        When a part cannot be read, on later reads.
    """

    def __init__(self, url: str, keep: bool = True) -> None:
        self.name, self._url = os.path.basename(url.partition("?")[0]), url
        cache = {"cache_type": "blockcache", "cache_options": {"maxblocks": BLOCKS}} if keep else {"cache_type": "none"}
        with in_wsipipes_words(url):
            system, name = fsspec.core.url_to_fs(url)
            self._file: IO[bytes] = system.open(name, "rb", block_size=BLOCK, **cache)
        try:
            with in_wsipipes_words(url):
                self._file.seek(max(0, self._file.seek(0, os.SEEK_END) - 1))
                self._file.read(1)  # a server that gives no parts says so now
                self._file.seek(0)
        except BaseException:
            self._file.close()
            raise

    def read(self, size: int = -1) -> bytes:
        """Return the next *size* bytes, fewer at the end."""
        at = self._file.tell()

        def once() -> bytes:
            self._file.seek(at)
            return self._file.read(size)

        return again(once)

    def readinto(self, buffer: Any) -> int:
        """Fill *buffer*; return the number of bytes."""
        data = self.read(len(memoryview(buffer).cast("B")))
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; return it."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the place of the next read."""
        return int(self._file.tell())

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return False."""
        return False

    def write(self, data: bytes) -> int:
        """Refuse: remote slides are only read."""
        raise OSError(f"{self._url} is open for reading")

    def flush(self) -> None:
        """Do nothing."""

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return bool(self._file.closed)

    def close(self) -> None:
        """Let go of the blocks."""
        self._file.close()

    def __enter__(self) -> Blocks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def again(read: Callable[[], T]) -> T:
    """Return what *read* returns, tried up to three times; OSError when it fails every time."""
    for pause in (*PAUSES, None):
        try:
            return read()
        except _expected() as error:
            if pause is None:
                raise OSError(_words(error)) from error
        time.sleep(pause)
    raise AssertionError


@contextmanager
def in_wsipipes_words(url: str) -> Iterator[None]:
    """Turn what libraries below fsspec raise while *url* is opened into one line of wsipipe's own."""
    try:
        yield
    except WsipipeError:
        raise
    except ImportError as error:
        raise remote_needs(url) from error
    except ValueError as error:
        if any(word in str(error) for word in ("range requests", "than requested", "seek")):
            raise UnreadableSlide(
                f"cannot open {url}: its server gives files only as a whole; "
                "download it first, or give --stage FOLDER, which does"
            ) from error
        raise _refusal(url, error) from error
    except _expected() as error:
        raise _refusal(url, error) from error


def _refusal(url: str, error: Exception) -> WsipipeError:
    cause = error
    while isinstance(cause, FileNotFoundError) and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__  # fsspec takes whatever goes wrong for a file that is not there
    error, status, words = cause, getattr(cause, "status", 0), _words(cause)
    told = f"{type(error).__name__} {words}".lower()
    if isinstance(error, FileNotFoundError) or status == 404 or "nosuchbucket" in told:
        return SlideNotFound(f"no such slide: {url}")
    refused = isinstance(error, PermissionError) or status in (401, 403)
    if refused or any(word in told for word in ("credential", "forbidden", "access denied", "anonymous")):
        return UnreadableSlide(f"cannot open {url}: no permission; {CREDENTIALS[_package(url)]}")
    if isinstance(error, ValueError) and "protocol" in told:
        return UnreadableSlide(
            f"cannot open {url}: unknown kind of address {_scheme(url)}://; expected https, s3, gs, az"
        )
    return UnreadableSlide(f"cannot open {url}: {words}; is the address right, and the network up?")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _expected() -> tuple[type[Exception], ...]:
    """Return what reading may raise: OSError, and the errors of those libraries that are loaded."""
    foreign = [getattr(sys.modules[module], name) for module, name in FOREIGN if module in sys.modules]
    return (OSError, *foreign)


def _scheme(url: str) -> str:
    return url.partition("://")[0]


def _package(url: str) -> str:
    return PACKAGES.get(_scheme(url), "aiohttp")
