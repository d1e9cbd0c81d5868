"""The runs that the page starts: child processes of the command line, one at a time, each in a folder of its own.

What a run is made of lies in its folder: ``slides.csv``, ``run.toml``, ``app.json`` with the command, and what the
command itself writes. So a run goes on from here or from a terminal, and is there again when the page is.
"""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsipipe.artifacts import atomic_write, write_json
from wsipipe.artifacts.plain import from_json
from wsipipe.artifacts.system import ask_to_stop, child_options, shell_line
from wsipipe.errors import OutputError, SettingsError, SlideNotFound

APP, TABLE, CONFIG, REPORT = "app.json", "slides.csv", "run.toml", "report.json"
NAME = re.compile(r"[\w][\w .()+-]{0,79}")
PROGRESS = re.compile(r"(\w+) (\d+)/(\d+)")
LINES = 400
"""Lines of a run that are kept."""
INTERRUPTED = 130
MARKERS = ("ki67", "er", "pr", "p53")


@dataclass
class Run:
    """One run: its folder, what it was asked, and what became of it since the page was started.

    Attributes
    ----------
    state : str
        waiting, running, stopping, done, failed, stopped; "" when nothing happened since.
    """

    folder: Path
    slides: list[str]
    model: str
    state: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    stages: dict[str, tuple[int, int]] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0

    @property
    def name(self) -> str:
        """Name of the run: of its folder."""
        return self.folder.name

    def segment(self) -> list[str]:
        """Return the arguments of wsipipe that find the cells."""
        at = self.folder
        folders = [slide for slide in self.slides if os.path.isdir(slide)]
        table = [str(at / TABLE)] if len(folders) < len(self.slides) else []
        return [
            *("segment", *table, *folders, "-o", f"{at}{os.sep}", "--model", self.model, "--config", str(at / CONFIG)),
            *("--format", "parquet,geojson.gz", "--report"),
        ]

    def outcomes(self) -> list[dict[str, Any]]:
        """Return what the run's own ``report.json`` says of each slide."""
        try:
            found = from_json((self.folder / REPORT).read_bytes())["slides"]
        except (OSError, ValueError, LookupError, TypeError):
            return []
        return [slide for slide in found if isinstance(slide, dict)] if isinstance(found, list) else []


class Desk:
    """Starts runs and watches them.

    Parameters
    ----------
    results : Path
        Folder that the folders of runs lie in; it is made when it is needed.
    program : sequence of str
        How wsipipe is started.
    """

    def __init__(self, results: Path, program: Sequence[str] = (sys.executable, "-m", "wsipipe")) -> None:
        self.results, self._program = results, list(program)
        self._turn = threading.Condition()
        self._waiting: deque[tuple[Run, list[list[str]]]] = deque()
        self._child: subprocess.Popen[str] | None = None
        self._closed = False
        self.runs = {run.name: run for run in self._earlier()}
        self._thread = threading.Thread(target=self._work, name="runs", daemon=True)
        self._thread.start()

    def _earlier(self) -> list[Run]:
        """Return the runs of earlier times, oldest first."""
        found = []
        for about in self.results.glob(f"*/{APP}"):
            try:
                told = from_json(about.read_bytes())
                run = Run(about.parent, list(map(str, told["slides"])), str(told["model"]), began=float(told["began"]))
            except (OSError, ValueError, LookupError, TypeError):
                continue
            found.append(run)
        return sorted(found, key=lambda run: run.began)

    def start(self, name: str, slides: Sequence[str], model: str, config: str) -> Run:
        """Write down a new run and queue it.

        Raises
        ------
        SettingsError
            When the name cannot be that of a folder, or a run of that name is there.
        OutputError
            When its folder cannot be written.
        """
        if not NAME.fullmatch(name) or name.endswith((".", " ")):
            raise SettingsError(f"{name!r} cannot be the name of a folder; expected letters, digits, blanks, - and _")
        if not slides:
            raise SettingsError("no slide is chosen; choose some, or a folder")
        folder = self.results / name
        with self._turn:
            if name in self.runs or folder.exists():
                raise SettingsError(f"a run called {name!r} is there already; give another name, or let it go on")
            run = Run(folder, list(slides), model, began=time.time())
            self._write(run, config)
            self.runs[name] = run
        self._queue(run, [run.segment()])
        return run

    def _write(self, run: Run, config: str) -> None:
        table = io.StringIO()
        files = [slide for slide in run.slides if not os.path.isdir(slide)]
        csv.writer(table, lineterminator="\n").writerows([["path"], *([slide] for slide in files)])
        try:
            run.folder.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"cannot write {run.folder}: {error.strerror}") from error
        for name, text in ((TABLE, table.getvalue()), (CONFIG, config)):
            with atomic_write(run.folder / name, "w") as file:
                file.write(text)
        command = shell_line(["wsipipe", *run.segment()])
        about = {"slides": run.slides, "model": run.model, "began": run.began, "command": command}
        write_json(run.folder / APP, about)

    def again(self, name: str) -> None:
        """Let a run go on: what is done is not done twice."""
        run = self.find(name)
        self._queue(run, [[*run.segment(), "--retry-failed"]])

    def score(self, name: str, marker: str) -> None:
        """Measure stains, and tell positive cells from negative ones, in the slides of a run that are done."""
        if marker not in MARKERS:
            raise SettingsError(f"no marker {marker!r}; expected one of {', '.join(MARKERS)}")
        run = self.find(name)
        steps: list[list[str]] = []
        for slide, master in self.masters(run):
            at = run.folder / f"score-{marker}" / master.relative_to(run.folder)
            measured = at.with_suffix(".measured.parquet")
            steps.append(["measure", str(master), "--slide", slide, "--add", "stains", "-o", str(measured)])
            outputs = ["-o", str(at), "--table", str(at.with_suffix(".csv")), "--page", str(at.with_suffix(".html"))]
            steps.append(["score", str(measured), "--marker", marker, "--slide", slide, *outputs])
        if not steps:
            raise SettingsError(f"{name}: no slide is done yet")
        self._queue(run, steps)

    def masters(self, run: Run) -> list[tuple[str, Path]]:
        """Return slide and cells (.parquet) of what is done."""
        found = [
            (str(slide.get("slide")), Path(output))
            for slide in run.outcomes()
            for output in slide.get("outputs") or ()
            if str(output).endswith(".parquet")
        ]
        return [(slide, path) for slide, path in found if path.is_relative_to(run.folder) and path.is_file()]

    def scores(self, run: Run) -> list[tuple[str, Path]]:
        """Return marker and page of the scores that were made."""
        return [(m, page) for m in MARKERS for page in sorted(run.folder.glob(f"score-{m}/**/*.html"))]

    def find(self, name: str) -> Run:
        """Return the run called *name*; raise :class:`SlideNotFound` when there is none."""
        try:
            return self.runs[name]
        except KeyError as error:
            raise SlideNotFound(f"there is no run called {name!r}") from error

    def stop(self, name: str) -> None:
        """Ask a run to stop; what is done is kept."""
        run = self.find(name)
        with self._turn:
            self._waiting = deque(item for item in self._waiting if item[0] is not run)
            if run.state == "running" and self._child is not None:
                run.state = "stopping"
                ask_to_stop(self._child)
            elif run.state == "waiting":
                run.state = "stopped"

    def close(self) -> None:
        """Stop what runs, and wait for it."""
        with self._turn:
            self._closed = True
            self._waiting.clear()
            child = self._child
            self._turn.notify()
        if child is not None:
            ask_to_stop(child)
        self._thread.join(timeout=15)

    def _queue(self, run: Run, steps: list[list[str]]) -> None:
        with self._turn:
            if run.state in ("waiting", "running", "stopping"):
                raise SettingsError(f"{run.name} is {run.state} already")
            run.state = "waiting"
            run.lines.clear()
            run.stages.clear()
            self._waiting.append((run, steps))
            self._turn.notify()

    def _work(self) -> None:
        """Run what waits, one after the other: a slide may take all memory that there is."""
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._closed or bool(self._waiting))
                if self._closed:
                    return
                run, steps = self._waiting.popleft()
                run.state, run.began = "running", time.time()
            code = next((code for words in steps if (code := self._step(run, words))), 0)
            with self._turn:
                stopped = run.state == "stopping" or self._closed or code == INTERRUPTED
                run.state = "stopped" if stopped else "failed" if code else "done"
                run.ended = time.time()

    def _step(self, run: Run, words: list[str]) -> int:
        """Run one command to its end; return its exit code."""
        environment = {**os.environ, "PYTHONUTF8": "1", "WSIPIPE_PROGRESS": "lines", "COLUMNS": "160"}
        run.lines.append("$ " + shell_line(["wsipipe", *words]))
        with self._turn:
            if run.state == "stopping" or self._closed:
                return INTERRUPTED
            self._child = subprocess.Popen(
                [*self._program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env=environment, encoding="utf-8", errors="replace", **child_options(),
            )  # fmt: skip
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._hear(run, line.rstrip())
        code = self._child.wait()
        self._child.stdout.close()
        with self._turn:
            self._child = None
        return code

    def _hear(self, run: Run, line: str) -> None:
        """Take a line for progress when it is nothing else, or keep it."""
        parts = [PROGRESS.fullmatch(part) for part in line.split(", ")]
        if line and all(parts):
            run.stages |= {found[1]: (int(found[2]), int(found[3])) for found in parts if found}
        elif line:
            run.lines.append(line)
