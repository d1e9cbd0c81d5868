"""Commands stopped at a chosen moment: before their n-th change to a folder. Run as ``python -m tests.runs.moments``.

A moment is an audit event of Python: a file opened for writing, renamed or removed, a folder made or removed. Each run
is a fork of one process that has imported everything, so many runs cost little more than the work itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import json
import os
import pkgutil
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
KILLED = -signal.SIGKILL
Moment = Callable[[int, str], None]


def is_change(event: str, args: tuple[Any, ...], folder: bytes) -> bool:
    """Whether *event* is about to change something in *folder*."""
    if event == "open":
        path, _, flags = args
        return isinstance(path, str | bytes) and bool(flags & WRITING) and os.fsencode(path).startswith(folder)
    if event not in CHANGES:
        return False
    beside = isinstance(args[-1], int) and args[-1] >= 0 and event != "os.mkdir"  # relative to an open folder
    return beside or any(os.fsencode(a).startswith(folder) for a in args if isinstance(a, str | bytes))


def start(command: Sequence[str], folder: Path, said: Path, at: Moment) -> int:
    """Fork a process that runs *command* and calls ``at(number, event)`` at each moment; return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        number, prefix = itertools.count(1), os.fsencode(folder) + b"/"

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if is_change(event, args, prefix):
                at(next(number), event)

        sys.addaudithook(hook)
        from wsipipe.cli.main import main

        code = main(list(command))
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """Return the exit code of a process, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def nothing(number: int, event: str) -> None:
    """Let the moment pass."""


def killing(wanted: int) -> Moment:
    """Return what kills the process at moment *wanted*."""

    def at(number: int, event: str) -> None:
        if number == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def state(folder: Path, outputs: Sequence[str]) -> dict[str, str]:
    """Return a digest of each output, "" where there is none."""
    return {name: _digest(folder / name) for name in outputs}


def _digest(path: Path) -> str:
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.is_dir():
        return ""
    inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    return hashlib.sha256(repr([(str(p.relative_to(path)), _digest(p)) for p in inside]).encode()).hexdigest()


def litter(folder: Path) -> list[str]:
    """Return what a finished command must not leave."""
    names = (p.relative_to(folder).as_posix() for p in folder.rglob(".*"))
    return sorted(name for name in names if not name.endswith(".wsipipe"))


class Case:
    """A command, the state that it finds, and what it makes of it."""

    def __init__(self, template: Path, place: Path, case: dict[str, Any]) -> None:
        self.template, self.folder, self.said = template, place / "run", place / "said"
        self.outputs: list[str] = case["outputs"]
        self.before, self.command = (self._placed(case[name]) for name in ("before", "command"))
        self.old = self.start_over(fill=True)
        self.events: list[str] = []
        self.new = self._whole()

    def _placed(self, command: Sequence[str]) -> list[str]:
        return [word.replace("{}", str(self.folder)) for word in command]

    def start_over(self, fill: bool = False) -> dict[str, str]:
        """Bring back what stood there before the command; made by *before* the first time."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.template, self.folder)
        if fill and self.before:
            assert self.run(self.before) == 0, self.told
            shutil.copytree(self.folder, self.template, dirs_exist_ok=True)
        return state(self.folder, self.outputs)

    @property
    def told(self) -> str:
        """What the last command printed."""
        return self.said.read_text(errors="replace")

    def run(self, command: Sequence[str], at: Moment = nothing) -> int:
        """Run a command to its end."""
        return wait(start(command, self.folder, self.said, at))

    def _whole(self) -> dict[str, str]:
        """Return what the undisturbed command makes, and note its moments."""
        events = self.folder.with_name("events")
        file = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        assert self.run(self.command, lambda number, event: _append(file, event)) == 0, self.told
        self.events = events.read_text().split()
        return state(self.folder, self.outputs)


def _append(file: int, event: str) -> None:
    os.write(file, f"{event}\n".encode())


def moments(events: Sequence[str], limit: int) -> list[int]:
    """Return at most *limit* moments: around each renaming, where results appear, and some in between."""
    around = {n + k for n, event in enumerate(events, 1) if event == "os.rename" for k in (0, 1)}
    every = sorted(around | {2, len(events) // 2, len(events)})
    step = max(1.0, len(every) / limit)
    return sorted({every[-1 - int(i * step)] for i in range(min(limit, len(every)))})


def killed(case: Case, limit: int) -> list[str]:
    """Kill the command at several moments; return what was wrong after one, or after the command was run again."""
    wrong = []
    for moment in moments(case.events, limit):
        case.start_over()
        code = case.run(case.command, killing(moment))
        there = state(case.folder, case.outputs)
        halves = [n for n in case.outputs if there[n] not in (case.old[n], case.new[n])]
        if halves or code not in (0, KILLED):
            wrong.append(f"moment {moment} of {len(case.events)}: code {code}, neither old nor new: {halves}")
        if (code := case.run(case.command)) != 0:
            wrong.append(f"moment {moment}: run again, code {code}: {case.told}")
        elif (there := state(case.folder, case.outputs)) != case.new:
            wrong.append(f"moment {moment}: run again, other than {[n for n in there if there[n] != case.new[n]]}")
        if left := litter(case.folder):
            wrong.append(f"moment {moment}: run again, left {left}")
    return wrong


def together(case: Case, early: bool) -> list[str]:
    """Hold the command before its last renaming, or an *early* one; run it a second time; return what was wrong."""
    case.start_over()
    (heard, tell), (wait_here, go_on) = os.pipe(), os.pipe()
    renames = [n for n, event in enumerate(case.events, 1) if event == "os.rename"]
    last = renames[len(renames) // 3] if early else renames[-1]

    def holding(number: int, event: str) -> None:
        if number == last:
            os.write(tell, b".")
            os.read(wait_here, 1)

    first = start(case.command, case.folder, case.said.with_name("first"), holding)
    os.close(tell)
    if not os.read(heard, 1):
        return [f"the first ended early: {wait(first)}"]
    code, told = case.run(case.command), case.told
    os.write(go_on, b".")
    ended = wait(first)
    wrong = [] if ended == 0 else [f"the first ended with {ended}: {case.said.with_name('first').read_text()}"]
    errors = [line for line in told.splitlines() if line.startswith("wsipipe: error:")]
    if (code == 0) == bool(errors) or len(errors) > 1 or "works on it" not in told:
        wrong.append(f"the second ended with {code}: {told}")
    if state(case.folder, case.outputs) != case.new:
        wrong.append("the result is another one")
    return wrong + ([f"left {left}"] if (left := litter(case.folder)) else [])


def main(arguments: Sequence[str]) -> None:
    """Import everything, then do what the JSON in a file says of one case; print what was wrong."""
    import wsipipe

    for module in pkgutil.walk_packages(wsipipe.__path__, "wsipipe."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # an optional library
                importlib.import_module(module.name)
    from wsipipe.models.cmd import SIZES, CMDConfig

    SIZES["T"] = lambda condition=0: CMDConfig((4, 4, 4, 8, 8, 16), condition)  # pretraining takes no time
    asked = json.loads(Path(arguments[0]).read_text())
    case = Case(Path(asked["template"]), Path(asked["place"]), asked)
    wrong = killed(case, asked["limit"])
    wrong += together(case, asked["early"])
    changed = [name for name in case.outputs if case.old[name] != case.new[name]]
    if changed != case.outputs:
        wrong.append(f"the command changes only {changed} of {case.outputs}: nothing to be seen")
    print(json.dumps({"wrong": wrong, "moments": len(case.events)}))


if __name__ == "__main__":
    main(sys.argv[1:])
