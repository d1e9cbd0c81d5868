"""What differs between Linux, macOS and Windows, each with a way on all three.

Nothing else in the package asks which system it runs on. The ways of Windows are tried by tests that take the ways of
POSIX away; see ``docs/install.md`` for what has run where.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import multiprocessing
import os
import shlex
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

WINDOWS = os.name == "nt"
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
"""What file systems without hard links say (EINVAL: FAT, under Windows)."""
NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What file systems say that cannot exchange two names at once."""
AT_FDCWD, SWAP = -100, 2
PATIENCE = 2.0
"""Seconds for which Windows is asked again to rename a file that a virus scanner or an indexer has open."""
STOPS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGBREAK") if hasattr(signal, name)
)
"""Signals beside Ctrl-C that ask a process to stop: SIGBREAK is how Windows asks a child."""


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


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders at once; False where neither system nor file system can.

    Raises
    ------
    OSError
    """
    call = _exchanger()
    if call is None or call(os.fsencode(one), os.fsencode(other)) == 0:
        return call is not None
    code = ctypes.get_errno()
    if code in NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


@cache
def _exchanger() -> Callable[[bytes, bytes], int] | None:
    """Return the system's call that exchanges two names, None where it has none."""
    if WINDOWS:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renamex_np"):  # macOS
        return lambda one, other: int(libc.renamex_np(one, other, SWAP))
    if hasattr(libc, "renameat2"):  # glibc
        return lambda one, other: int(libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, SWAP))
    return None


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
