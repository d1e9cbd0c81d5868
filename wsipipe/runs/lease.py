"""Leases: which process works on what, in a folder that several processes and hosts share.

The lease of ``cells.parquet`` is the file ``.cells.parquet.lease.N`` beside it. Its holder touches it every few
seconds. It is stale when the holder was on this host and is no longer there (process id and start time), or has not
touched it for ``BatchSettings.lease_seconds``, or it is dated that far in the future. Whoever finds lease N stale
creates N + 1, which only one can, and then removes N.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import platform
import socket
import threading
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from wsipipe.artifacts import from_json, hidden_beside, make_parents, refusal, short_name
from wsipipe.artifacts.system import began, link
from wsipipe.errors import OutputBusy
from wsipipe.runs.folder import restore

BEATS = 6
"""Signs of life within the time after which a lease is given up."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Attributes
    ----------
    machine : str
        Host, boot and process namespace: where process ids mean the same.
    started : str
        When the process began, as the system counts: ids are used again.
    """

    host: str = "an unknown host"
    pid: int = 0
    machine: str = ""
    started: str = ""
    since: str = ""

    @classmethod
    def me(cls) -> Holder:
        """Return this process."""
        pid, since = os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(socket.gethostname(), pid, machine(), began(pid) or "", since)

    @property
    def is_dead(self) -> bool:
        """Whether this process was on this machine, and is no longer."""
        return self.machine == machine() and began(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" since {self.since}" if self.since else "")


@cache
def machine() -> str:
    """Return a name for the place in which process ids are unique: host, boot and process namespace."""
    boot = space = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return f"{platform.node()} {boot} {space}".strip()


class Lease:
    """The right to work on an output; kept alive by a thread until it is released. Made by :func:`acquire`."""

    def __init__(self, file: Path, seconds: float) -> None:
        self.file = file
        self._content = file.read_bytes()
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, args=(seconds / BEATS,), name="lease", daemon=True)
        self._thread.start()

    def _beat(self, pause: float) -> None:
        while not self._ended.wait(pause):
            try:
                if self.file.read_bytes() != self._content:
                    raise FileNotFoundError
                os.utime(self.file)
            except FileNotFoundError:
                self._lost = True
                return
            except OSError:
                continue  # a file server that is away for a moment

    def check(self) -> None:
        """Raise :class:`OutputBusy` when somebody else took over, as after a long suspension of this process."""
        if self._lost:
            raise OutputBusy(f"{self.file}: this process was silent for too long, and another one took the work over")

    def release(self) -> None:
        """Give the lease back."""
        self._ended.set()
        self._thread.join(timeout=1)
        with contextlib.suppress(FileNotFoundError):
            if not self._lost and self.file.read_bytes() == self._content:
                self.file.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire(output: Path, seconds: float = 120.0) -> Lease:
    """Return the lease of *output*; a folder that a killed process has moved away is put back.

    Raises
    ------
    OutputBusy
        When another process has it, and is alive as far as can be known.
    OutputError
        When nothing can be written there.
    """
    make_parents(output)
    earlier = check_free(output, seconds)
    mine = _file(output, max(earlier, default=0) + 1)
    try:
        _create(mine, output)
    except OSError as error:
        if isinstance(error, (FileExistsError, FileNotFoundError)) and output.parent.is_dir():
            raise OutputBusy(f"{output}: another process has just begun to work on it") from error
        raise refusal(output, error) from error
    if set(_leases(output).values()) - set(earlier.values()) - {mine}:
        mine.unlink(missing_ok=True)
        raise OutputBusy(f"{output}: another process has just begun to work on it")
    for file in earlier.values():
        file.unlink(missing_ok=True)
    restore(output)
    return Lease(mine, seconds)


def _create(file: Path, output: Path) -> None:
    """Create the lease *file* of *output*, complete from the first moment: a process killed meanwhile holds nothing.

    On a file system without hard links it is empty for a moment.
    """
    me = json.dumps(asdict(Holder.me()))
    temporary = hidden_beside(output)
    try:
        temporary.write_text(me, encoding="utf-8")
        if not link(temporary, file):
            with file.open("x", encoding="utf-8") as stream:
                stream.write(me)
    finally:
        temporary.unlink(missing_ok=True)


def check_free(output: Path, seconds: float = 120.0) -> dict[int, Path]:
    """Return the stale leases of *output* by number; raise :class:`OutputBusy` when somebody holds one."""
    leases = _leases(output)
    for file in leases.values():
        if holder := holder_of(file, seconds):
            raise OutputBusy(f"{output}: {holder} works on it; wait for it, or end it (if it is gone, remove {file})")
    return leases


def holder_of(file: Path, seconds: float) -> Holder | None:
    """Return who holds the lease in *file*; None when it is stale, or gone."""
    try:
        touched = file.stat().st_mtime
        holder = Holder(**from_json(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        holder = Holder()  # being written this moment, or by a process that died as it wrote
    if holder.machine == machine():
        return None if holder.is_dead else holder
    return None if abs(_now(file.parent) - touched) > seconds else holder


def _now(folder: Path) -> float:
    """Return the time as the file server of *folder* tells it: hosts' clocks differ."""
    probe = hidden_beside(folder / "clock")
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _file(output: Path, number: int) -> Path:
    return output.with_name(f".{short_name(output.name)}.lease.{number}")


def _leases(output: Path) -> dict[int, Path]:
    """Return the lease files of *output* by number."""
    found = output.parent.glob(f".{glob.escape(short_name(output.name))}.lease.*")
    return {int(path.suffix[1:]): path for path in found if path.suffix[1:].isdigit()}
