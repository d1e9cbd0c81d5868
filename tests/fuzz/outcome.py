"""What becomes of a damaged input, each in a process of its own that shares the warm libraries of this one."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import json
import os
import pkgutil
import re
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pyarrow.parquet as pq
import torch

import wsipipe
from tests.fuzz.cases import Case
from tests.fuzz.commands import Target, run
from tests.fuzz.seeds import make
from wsipipe.models.checkpoint import model_hash

CPU_SECONDS, WALL_SECONDS, MEMORY_KB, ADDRESSES = 60, 1200, 4_000_000, 24 << 30
FAULTS = ("traceback", "riddle", "hang", "silent", "half-written", "costly")
"""Outcomes that may not be; see ``docs/reliability.md``."""
RIDDLES = re.compile(
    r"list index out of range|NoneType|not subscriptable|has no attribute|unexpected keyword|positional argument|"
    r"object is not|must be str|unhashable|unexpected (Key|Index|Type|Attribute|Value|Assertion)Error|\(Key|"
    r"invalid literal for|could not convert|not enough values|too many values|out of bounds for axis|broadcast"
)
"""What Python says to programmers."""

WARNS = re.compile(r"warning|unreadable|cannot be read|could not be used|^! |no tissue", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes
    ----------
    what : str
        refused, warned, same, other; or one of :data:`FAULTS`.
    said : str
        The end of what was printed.
    """

    what: str
    said: str = ""


class Bench:
    """Runs one command on damaged inputs.

    Each input is read in a child of this process, which has taken the intact input itself before, where there are many:
    what is compiled and loaded at the first use is there already. What the program keeps of files is forgotten, so that
    a child reads its own. The threads that the libraries started are not there in a child; they start them again.

    Parameters
    ----------
    target : Target
    root : Path
        Where the intact inputs are, and a folder to work in.
    many : bool
        Whether it is worth while to take the intact input in this process first, so that the children are quicker.

    Raises
    ------
    AssertionError
        When the command does not take the intact input.
    """

    def __init__(self, target: Target, root: Path, many: bool = True) -> None:
        self.target, self.work = target, root / f"work-{os.getpid()}"
        self.said, self.told = root / f"said-{os.getpid()}.txt", root / f"told-{os.getpid()}.json"
        assert self._child(lambda: make(target.kind, root) and 0) == 0, f"no input: {self.said.read_text()}"
        self.intact = root / target.kind
        status = self._try(lambda: (sorted(p for p in self.work.glob(target.files) if p.is_file())[0], False))
        assert status == 0, f"the intact input is not taken: {self.said.read_text()}"
        if many:
            self._take()
            status = self._try(lambda: (sorted(p for p in self.work.glob(target.files) if p.is_file())[0], False))
            assert status == 0, f"the intact input is not taken a second time: {self.said.read_text()}"
        self._lines, self._results = set(self.said.read_text().splitlines()), self._report()["results"]

    def try_seed(self, seed: int) -> Outcome | None:
        """Return the outcome of the input that *seed* makes; None where that is the intact one."""
        status, text = self._try(lambda: self.target.damage(self.work, seed)), self.said.read_text(errors="replace")
        report = self._report()
        return None if report.get("same") else Outcome(self._judge(status, text, report), text[-1500:])

    def try_case(self, case: Case) -> Outcome:
        """Return the outcome of an input that was a fault once."""
        status, text = self._try(lambda: (case.spoil(self.work), case.strict)), self.said.read_text(errors="replace")
        return Outcome(self._judge(status, text, self._report()), text[-1500:])

    def _judge(self, status: int | None, text: str, report: dict[str, Any]) -> str:
        if status is None:
            return "hang"
        if "Traceback" in text or status < 0 or status == CRASHED:
            return "traceback"
        if any(report["results"].get(name) != self._results[name] for name in self.target.spared):
            return "costly"
        if status:
            lines = [line for line in text.splitlines() if line.startswith("wsipipe: error: ")]
            if RIDDLES.search(text) or (self.target.kind not in ("sheet", "folder") and len(lines) != 1):
                return "riddle"
            left = [p for p in (self.work / "out").glob("cells.*") if p.is_file()]
            return "half-written" if left else "refused"
        if report["results"] == self._results:
            return "same"
        if WARNS.search("\n".join(set(text.splitlines()) - self._lines)):
            return "riddle" if RIDDLES.search(text) else "warned"
        return "silent" if report["strict"] else "other"

    def _try(self, damage: Callable[[], tuple[Path | str | None, bool] | None]) -> int | None:
        """Let a child *damage* the input and run the command; return its exit code, see :meth:`_child`."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.intact, self.work)
        (self.work / "out").mkdir()
        self.told.unlink(missing_ok=True)
        return self._child(lambda: self._attempt(damage()))

    def _take(self) -> None:
        """Take the intact input in this process, in a folder of its own."""
        here, own = os.getcwd(), self.work.with_name(f"{self.work.name}-own")
        shutil.copytree(self.intact, own)
        (own / "out").mkdir()
        path = sorted(p for p in own.glob(self.target.files) if p.is_file())[0]
        streams = sys.stdout, sys.stderr
        os.chdir(own)
        try:
            with open(os.devnull, "w") as sys.stdout, open(os.devnull, "w") as sys.stderr:
                run(self.target.args(str(path.relative_to(own))))
        finally:
            sys.stdout, sys.stderr = streams
            os.chdir(here)
        shutil.rmtree(own)
        forget()
        gc.freeze()

    def _attempt(self, damaged: tuple[Path | str | None, bool] | None) -> int:
        """Run the command, in a child, and leave behind what came of it."""
        if damaged is None:
            self.told.write_text(json.dumps({"same": True}))
            return 0
        path, strict = damaged
        os.chdir(self.work)
        path = sorted(p for p in self.intact.glob(self.target.files) if p.is_file())[0] if path is None else path
        given = os.path.relpath(path, self.intact if self.intact in Path(path).parents else self.work)
        code = run(self.target.args(path if isinstance(path, str) else given))
        found = results(Path("out")) if not code or self.target.spared else {}
        self.told.write_text(json.dumps({"strict": strict, "results": found}))
        return code

    def _report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.told.read_text()) if self.told.exists() else {}
        return found

    def _child(self, work: Callable[[], int]) -> int | None:
        """Do *work* in a child; return its exit code (negative: a signal; None: out of time or memory)."""
        child = os.fork()
        if not child:
            _end_with(work, self.said)
        _, status, used = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status)
        late = code in (-signal.SIGXCPU, -signal.SIGALRM, -signal.SIGKILL)
        return None if late or used.ru_maxrss > MEMORY_KB else code


CRASHED = 99


def _end_with(work: Callable[[], int], said: Path) -> None:
    """Do *work* in this process, a child, within limits, and end it."""
    code = CRASHED
    try:
        with said.open("w", buffering=1) as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            sys.stdout = sys.stderr = stream
            os.environ["SLURM_CPUS_PER_TASK"] = "1"  # one core, as others have the rest
            signal.alarm(WALL_SECONDS)
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
            code = work()
            sys.stdout.flush()
    except BaseException:  # noqa: BLE001 whatever it is, it is to be seen
        with said.open("a") as stream:
            traceback.print_exc(file=stream)
    finally:
        os._exit(code)


def results(out: Path) -> dict[str, str]:
    """Return a digest of each result in a folder, of what is in it rather than of names, times and places."""
    return {
        str(path.relative_to(out)): hashlib.sha256(_content(path)).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(out).parts)
        if not path.name.endswith((".json", ".md", ".failed.json", ".lease", ".png"))
        or path.name in ("cells.json", "p.png")
    }


def _content(path: Path) -> bytes:
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            names = [name for name in table.column_names if name not in ("cell_id", "slide", "patient", "organ")]
            return repr(table.select(names).to_pydict()).encode()
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                return b"".join(np.asarray(file[name]).tobytes() for name in sorted(file) if file[name].shape)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"unreadable: {error}".encode()
    return path.read_bytes()


def warm() -> None:
    """Import whatever a command may need, so that the children have it; use one thread each, and start none here."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    for module in pkgutil.walk_packages(wsipipe.__path__, "wsipipe."):
        if not module.name.endswith(("__main__", "cucim")):
            with contextlib.suppress(ModuleNotFoundError):  # what an optional part needs
                importlib.import_module(module.name)
    for name in (
        "torch._dynamo",
        "numba.typed",
        "geopandas",
        "starlette.testclient",
        "rich.table",
        "scipy.stats",
        "PIL.PngImagePlugin",
    ):
        importlib.import_module(name)
    for name in ("load_predictor", "Embedder"):
        _keep(name)
    gc.freeze()


def _keep(name: str) -> None:
    """Let what loads a network give the one it gave before, where the bytes of the file are the same."""
    homes = [m for n, m in list(sys.modules.items()) if n.startswith("wsipipe.") and hasattr(m, name)]
    real, kept = getattr(homes[0], name), {}

    def load(path: Path, *args: object) -> object:
        key = Path(path).name, model_hash(path), args
        if key not in kept:
            kept[key] = real(path, *args)
        return kept[key]

    for home in homes:
        setattr(home, name, load)


def forget() -> None:
    """Empty the caches of the program's functions."""
    for name, module in list(sys.modules.items()):
        if name.startswith("wsipipe"):
            for value in (*vars(module).values(), *(v for c in vars(module).values() for v in vars_of(c))):
                getattr(value, "cache_clear", bool)()


def vars_of(value: object) -> list[object]:
    """Return what a class holds, or nothing."""
    return list(vars(value).values()) if isinstance(value, type) else []


def as_line(name: str, seed: int, outcome: Outcome) -> str:
    """Return an outcome as a line of the log."""
    said = outcome.said if outcome.what in FAULTS else outcome.said[-200:]
    return json.dumps({"target": name, "seed": seed, "what": outcome.what, "said": said})
