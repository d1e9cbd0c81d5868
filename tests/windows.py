"""Runs the command line with what Windows lacks taken away: ``python -m tests.windows COMMAND ...``.

What POSIX alone has is removed from Python before wsipipe is loaded, and what Windows refuses is refused. So the ways
of Windows in :mod:`wsipipe.artifacts.system` run here, though not under Windows itself.
"""

from __future__ import annotations

import errno
import importlib
import multiprocessing
import os
import signal
import socket
import sys
from typing import Any

GONE = ("fcntl", "grp", "pwd", "resource", "termios")
NAMES = ("getuid", "geteuid", "sysconf", "sched_getaffinity", "set_blocking", "statvfs", "fork", "killpg", "setsid")


def refuse_what_windows_refuses() -> None:
    """Let no folder be opened, no file be flushed that was opened for reading, and nobody be linked to."""
    really_open, really_flush = os.open, os.fsync
    reading: set[int] = set()

    def opened(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if "dir_fd" not in options and os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        handle = really_open(path, flags, *args, **options)
        (reading.discard if flags & (os.O_WRONLY | os.O_RDWR) else reading.add)(handle)
        return handle

    def flush(handle: Any) -> None:
        if handle in reading:
            raise OSError(errno.EBADF, "Bad file descriptor")
        really_flush(handle)

    def link(*args: Any, **options: Any) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")  # FAT and exFAT; NTFS has links

    os.open, os.fsync, os.link = opened, flush, link  # type: ignore[assignment]


def take_away() -> None:
    """Make this process as poor as one under Windows, as far as wsipipe can tell."""
    importlib.import_module("wsipipe.cli.main")
    for library in ("numba", "torch", "pandas", "pyarrow", "scipy", "cv2", "distributed", "geopandas", "psutil"):
        importlib.import_module(library)  # these have ways of their own
    system = importlib.import_module("wsipipe.artifacts.system")
    for name in GONE:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in NAMES:
        if hasattr(os, name):
            delattr(os, name)
    multiprocessing.get_all_start_methods = lambda: ["spawn"]  # type: ignore[method-assign,assignment]
    refuse_what_windows_refuses()
    system.WINDOWS = True
    system.STOPS = (signal.SIGTERM,)
    assert socket.socketpair


if __name__ == "__main__":
    take_away()
    from wsipipe.cli.main import main

    sys.exit(main(sys.argv[1:]))
