"""What differs between Linux, macOS and Windows, each with a way on all three.

Nothing else in the package asks which system it runs on. The ways of Windows are tried by tests that take the ways of
POSIX away; see ``docs/install.md`` for what has run where.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import multiprocessing
import os
import shlex
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

WINDOWS = os.name == "nt"
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
"""What file systems without hard links say (EINVAL: FAT, under Windows)."""
PATIENCE = 2.0
"""Seconds for which Windows is asked again to rename a file that a virus scanner or an indexer has open."""
STOPS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGBREAK") if hasattr(signal, name)
)
"""Signals beside Ctrl-C that ask a process to stop: SIGBREAK is how Windows asks a child."""


def _module(name: str) -> Any:
    """Return a module that not every system has, None where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


fcntl, msvcrt = _module("fcntl"), _module("msvcrt")


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the existing *folder* for this process alone; the lock goes when the process does, however it ends.

    The folder itself is locked where that can be done, else a file beside it (a folder with an open file in it cannot
    be renamed under Windows).

    Raises
    ------
    BlockingIOError
        When another process holds it.
    """
    beside = folder.with_name(f".{folder.name}.lock")
    handle = os.open(folder, os.O_RDONLY) if fcntl else os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
    mine = False
    try:
        _lock(handle)
        mine = True
        yield
    finally:
        os.close(handle)
        if mine and not fcntl:
            with contextlib.suppress(OSError):  # the next one has it open already
                beside.unlink(missing_ok=True)


def _lock(handle: int) -> None:
    if fcntl:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK)) from error


def link(source: Path, target: Path) -> bool:
    """Give the file *source* the second name *target*; False where the file system knows no hard links.

    Raises
    ------
    FileExistsError
        When *target* is there: of several processes, one succeeds.
    OSError
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LINKS:
            raise
        return False
    return True


def flush_file(path: Path) -> None:
    """Have the content of a file on disk. Windows flushes only what is open for writing."""
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(path: Path) -> None:
    """Have the names in a folder on disk, where that can be asked for (not under Windows, nor on every file system)."""
    if not WINDOWS:
        with contextlib.suppress(OSError):
            flush_file(path)


def replace(source: Path, target: Path) -> None:
    """Rename, over what stands there. Windows refuses while somebody has either open: it is asked for a while."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if not WINDOWS or time.monotonic() > until:
                raise
        time.sleep(0.05)


def start_method() -> str:
    """Return how processes with open files and threads behind them begin: never by a plain fork."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def began(pid: int) -> str | None:
    """Return when process *pid* began, in one form on one system; None when there is no such process.

    Linux counts from the boot, so that a corrected clock changes nothing; elsewhere psutil asks the system.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        if os.path.isdir("/proc/self"):
            return None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def memory() -> tuple[int, int]:
    """Return the bytes of memory of this machine, and those that are free, whatever limits there are."""
    import psutil

    found = psutil.virtual_memory()
    return int(found.total), int(found.available)


def shell_line(words: Sequence[str]) -> str:
    """Return a command as one would type it in this system's shell."""
    return subprocess.list2cmdline(words) if WINDOWS else shlex.join(words)


def private_folder() -> str:
    """Return a temporary folder that is this user's alone, the same one every time if nobody has interfered."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    folder = os.path.join(tempfile.gettempdir(), f"wsipipe-{user}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if hasattr(os, "getuid"):  # under Windows the folder for temporary files is the user's own
        found = os.stat(folder)
        if found.st_uid != user or stat.S_IMODE(found.st_mode) & 0o077:  # what is in it would be run
            return tempfile.mkdtemp(prefix="wsipipe-")
    return folder


def child_options() -> dict[str, Any]:
    """Return the options of :class:`subprocess.Popen` for a child that :func:`ask_to_stop` can reach by itself."""
    return {"creationflags": 0x00000200} if WINDOWS else {"start_new_session": True}


def ask_to_stop(child: subprocess.Popen[Any]) -> None:
    """Ask a child, begun with :func:`child_options`, to stop as Ctrl-C does; it says how to go on, and ends."""
    with contextlib.suppress(OSError, ValueError):
        child.send_signal(signal.CTRL_BREAK_EVENT if WINDOWS else signal.SIGINT)  # type: ignore[attr-defined,unused-ignore]
