"""Ctrl-C that is answered at once, also while the main thread is deep in a library."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from wsipipe.artifacts.system import STOPS, shell_line
from wsipipe.cli.main import INTERRUPTED

PATIENCE = 1.5
"""Seconds after which an interrupted process leaves, whatever it is doing; files are written whole or not at all."""


def resume_line() -> str:
    """Return the line that says how to go on."""
    return f"the same command resumes it: wsipipe {shell_line(sys.argv[1:])}"


@contextmanager
def prompt_interrupt(tidy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Answer Ctrl-C (and SIGTERM) in the block within two seconds, a second Ctrl-C at once.

    Python hears a signal only between two instructions of the main thread. Here another thread hears it as well: it
    says that the run is stopping, and ends the process when the main thread does not.

    Parameters
    ----------
    tidy : callable
        Puts the terminal in order before the process is ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hears, rings = socket.socketpair()  # Windows waits for nothing but sockets
    rings.setblocking(False)
    left = threading.Event()
    earlier = signal.set_wakeup_fd(rings.fileno(), warn_on_full_buffer=False)
    asked = {number: signal.signal(number, _raise) for number in STOPS}
    threading.Thread(target=_listen, args=(hears, left, tidy), name="interrupt", daemon=True).start()
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(resume_line()) from stop
    finally:
        left.set()
        for number, handler in asked.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier)
        rings.close()


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _listen(bell: socket.socket, left: threading.Event, tidy: Callable[[], None]) -> None:
    """Wait for a signal, then for the main thread or for a second signal, whichever comes first."""
    with bell:
        if not _rung(bell):
            return
        print("wsipipe: stopping; what is done is kept (Ctrl-C again: at once)", file=sys.stderr, flush=True)
        if select.select([bell], [], [], PATIENCE)[0]:
            _rung(bell)
    if not left.is_set():
        tidy()
        print(f"wsipipe: interrupted; {resume_line()}", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)


def _rung(bell: socket.socket) -> bool:
    """Wait for Ctrl-C or another wish to stop; False when the block was left without one."""
    while byte := bell.recv(1):
        if byte[0] in (signal.SIGINT, *STOPS):
            return True
    return False
