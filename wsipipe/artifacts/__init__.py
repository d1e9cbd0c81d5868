"""Files that appear whole or not at all.

An output is written under a temporary name beside its target, flushed to disk and renamed. When anything fails the
temporary file goes and whatever stood there before is untouched.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from wsipipe.artifacts.plain import JSON_ESCAPE
from wsipipe.artifacts.plain import canonical_json as canonical_json
from wsipipe.artifacts.plain import digest as digest
from wsipipe.artifacts.plain import from_json as from_json
from wsipipe.artifacts.plain import plain as plain
from wsipipe.artifacts.system import flush_file, flush_folder, replace
from wsipipe.errors import OutputError, WsipipeError

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What a failing disk says."""
_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another folder",
    errno.EFBIG: "the file would exceed the size limit of this file system or process",
    errno.EIO: "the disk reported an input/output error",
    errno.EACCES: "no permission to write there: choose another folder",
    errno.EPERM: "writing there is not permitted: choose another folder",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOTDIR: "a part of the path is a file where a folder is expected",
    errno.ENAMETOOLONG: "the file name is too long",
}


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that takes the place of *path* only when the block ends well; folders above it are made.

    Parameters
    ----------
    path : path
        The output. A symbolic link is followed; the permissions of a file that is replaced are kept.
    mode : {"wb", "w"}
        Text is UTF-8 with ``\\n`` line ends.

    Raises
    ------
    OutputError
        When the output cannot be written (no space, no permission, no such folder, ...).
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode is {mode!r}; expected 'wb' or 'w'")
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    with atomic_path(path) as temporary, temporary.open(mode, **text) as file:
        yield file
        file.flush()


def copy_file(source: Path, path: Path) -> None:
    """Copy a file to *path*, atomically; errors as in :func:`atomic_write`."""
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the name of an empty temporary file that replaces *path* when the block ends well.

    For libraries that open files by name. Errors as in :func:`atomic_write`; an :class:`OSError` inside the block is
    taken for one of writing only when its errno says so (no space, quota, file size, input/output).
    """
    target = Path(os.path.realpath(path))
    make_parents(path)
    try:
        temporary = _create_beside(target)
    except OSError as error:
        raise refusal(path, error) from error
    try:
        yield temporary
        _commit(temporary, target, path)
    except OSError as error:
        if isinstance(error, WsipipeError) or error.errno not in DISK_ERRORS:
            raise
        raise refusal(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise :class:`~wsipipe.errors.OutputError` when *path* could not be written; leaves nothing behind.

    Called before the work begins, so that hours of it are not lost to a folder that may not be written to. Folders that
    are missing count as there when they can be made (:func:`make_parents`).
    """
    target = Path(os.path.realpath(path))
    try:
        if target.parent.exists():
            _create_beside(target).unlink()
        else:
            _check_parts(target)
            above = next(parent for parent in target.parents if parent.exists())
            probe = hidden_beside(above / target.name)
            probe.mkdir()
            probe.rmdir()
    except OSError as error:
        raise refusal(path, error) from error


def make_parents(path: str | os.PathLike[str]) -> None:
    """Make the folders above the output *path* that are missing.

    Raises
    ------
    OutputError
    """
    target = Path(os.path.realpath(path))
    try:
        if not target.parent.is_dir():
            _check_parts(target)
            target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise refusal(path, NotADirectoryError(errno.ENOTDIR, "")) from error
    except OSError as error:
        raise refusal(path, error) from error


def _check_parts(target: Path) -> None:
    """Refuse names that no file system takes."""
    if any(len(os.fsencode(part)) > 255 for part in target.parts):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def hidden_beside(target: Path, end: str = "tmp") -> Path:
    """Return a name beside *target* that nobody else has, which :func:`remove_leftovers` finds when it ends in tmp."""
    return target.with_name(f".{short_name(target.name)}.{secrets.token_hex(4)}.{end}")


def short_name(name: str) -> str:
    """Return a file name that leaves room for endings: *name* up to 100 bytes, else its beginning and its digest."""
    raw = os.fsencode(name)
    return name if len(raw) <= 100 else f"{os.fsdecode(raw[:64])}~{hashlib.sha256(raw).hexdigest()[:16]}"


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what killed processes have left under temporary names beside *path*, whose lease the caller holds.

    Parameters
    ----------
    path : path
        An output; with the name ``*`` all outputs of its folder.
    """
    target = Path(os.path.realpath(path))
    name = "*" if target.name == "*" else glob.escape(short_name(target.name))
    for leftover in target.parent.glob(f".{name}.????????.tmp"):
        with contextlib.suppress(OSError):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} where there is none."""
    try:
        content = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write *obj* as indented strict JSON, atomically. See :func:`plain` for what is taken, errors as atomic_write."""
    text = json.dumps(plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(f"{text}\n".encode(errors=JSON_ESCAPE))


def _create_beside(target: Path) -> Path:
    """Create and return an empty temporary file beside *target*, with its permissions."""
    mode = _mode_of_existing(target)
    temporary = hidden_beside(target)
    _check_parts(target)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    if mode is not None:
        with contextlib.suppress(OSError):  # a file system without permissions
            temporary.chmod(mode)
    return temporary


def _mode_of_existing(target: Path) -> int | None:
    """Return the permissions of the file to be replaced, None when there is none."""
    if not target.exists():
        return None
    if not target.is_file():
        raise OutputError(f"cannot write {target}: it is a folder or a device; give the name of a file")
    if not os.access(target, os.W_OK):
        raise OutputError(f"cannot write {target}: the file there is write-protected; remove it or give another name")
    return stat.S_IMODE(target.stat().st_mode)


def _commit(temporary: Path, target: Path, path: str | os.PathLike[str]) -> None:
    """Flush *temporary* to disk and rename it to *target*."""
    try:
        flush_file(temporary)
        replace(temporary, target)
    except OSError as error:
        raise refusal(path, error) from error
    flush_folder(target.parent)


def refusal(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """Return the one-line error for an output that could not be written."""
    if isinstance(error, OutputError):
        return error
    reason = _ADVICE.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"cannot write {os.fspath(path)}: {reason}")
