"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from wsipipe.artifacts import DISK_ERRORS, hidden_beside, make_parents, refusal, remove_leftovers
from wsipipe.artifacts.system import exchange, replace
from wsipipe.errors import OutputError, WsipipeError


def publish(work: Path, target: Path) -> None:
    """Give the finished folder *work* the name *target*; what stood there goes.

    One rename; where a folder stands there already, the two names are exchanged at once, so that a kill leaves one or
    the other. Systems that cannot (some file servers) need two renames: :func:`restore` puts back what a kill between
    them has moved away.

    Raises
    ------
    OSError
        What stood there still does.
    """
    if not target.exists():
        replace(work, target)
        return
    with contextlib.suppress(OSError):  # a file system without permissions
        shutil.copymode(target, work)
    old = hidden_beside(target)
    if exchange(work, target):
        replace(work, old)  # half of it must never be taken for unfinished work
    else:
        old = _moved(target)
        shutil.rmtree(old, ignore_errors=True)
        replace(target, old)
        try:
            replace(work, target)
        except BaseException:
            replace(old, target)
            raise
    shutil.rmtree(old, ignore_errors=True)


def restore(target: Path) -> None:
    """Put back the folder that a process killed between two renames has moved away from *target*."""
    old = _moved(target)
    if old.is_dir() and not target.exists():
        replace(old, target)


def _moved(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


@contextlib.contextmanager
def scratch_folder(output: Path) -> Iterator[Path]:
    """Yield an empty folder beside *output* for the block; what a killed process leaves there, the next run removes."""
    make_parents(output)
    folder = hidden_beside(Path(os.path.realpath(output)))
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], mark: str = "zarr.json") -> Iterator[Path]:
    """Yield an empty temporary folder that takes the place of the folder *path* when the block ends well.

    Parameters
    ----------
    path : path
        A folder that stands there is replaced only when it is empty or holds a file named *mark*, so that a mistyped
        name costs nobody their files.
    mark : str

    Raises
    ------
    OutputError
        When the output cannot be written, or something else stands at *path*; that is untouched then.
    """
    target = Path(os.path.realpath(path))
    stands = target.is_dir() and any(target.iterdir())
    if target.is_file() or (stands and not (target / mark).is_file()):
        raise OutputError(f"cannot write {path}: something else stands there (no {mark} in it); give another name")
    temporary = hidden_beside(target)
    make_parents(path)
    try:
        temporary.mkdir()
        yield temporary
        publish(temporary, target)
    except OSError as error:
        if isinstance(error, WsipipeError) or (temporary.exists() and error.errno not in DISK_ERRORS):
            raise
        raise refusal(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def result_folder(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """Yield an empty folder; what is put there takes the place of earlier results in *folder* when the block ends well.

    All of it at once. Where the folder holds other files too, or cannot be renamed (a mount point, the current folder),
    these stay, and the entries take their places one after another, each whole.

    Parameters
    ----------
    folder : Path
        Made when it is not there.
    names : iterable of str
        Patterns of what the command writes; earlier entries of these names go.

    Raises
    ------
    OutputError
    """
    target, known = Path(os.path.realpath(folder)), (*names, ".*.lease.*", ".*.tmp")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(folder, error) from error
    whole = _replaceable(target) and all(_is_known(entry.name, known) for entry in target.iterdir())
    for place in (target, target / "results"):
        remove_leftovers(place)
    work = hidden_beside(target if whole else target / "results")
    try:
        work.mkdir()
        yield work
        if whole:
            for lease in target.glob(".*.lease.*"):  # it stays where others look for it
                shutil.copy2(lease, work / lease.name)
            publish(work, target)
        else:
            _publish_entries(work, target, known)
    except OSError as error:
        if isinstance(error, WsipipeError) or (work.exists() and error.errno not in DISK_ERRORS):
            raise
        raise refusal(folder, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _is_known(name: str, known: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in known)


def _replaceable(target: Path) -> bool:
    """Whether another folder can take the name *target*, and nobody stands in it."""
    here = Path.cwd()
    free = not os.path.ismount(target) and target != here and target not in here.parents
    return free and os.access(target.parent, os.W_OK) and target.stat().st_dev == target.parent.stat().st_dev


def _publish_entries(work: Path, target: Path, known: Iterable[str]) -> None:
    """Move every entry of *work* into *target*; earlier ones of the *known* names that have no successor go."""
    fresh = sorted(work.iterdir())
    for entry in fresh:
        place = target / entry.name
        publish(entry, place) if entry.is_dir() else replace(entry, place)
    earlier = [entry for entry in target.iterdir() if not entry.name.startswith(".") and _is_known(entry.name, known)]
    for entry in earlier:
        if entry.name not in {e.name for e in fresh}:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
