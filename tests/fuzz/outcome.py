"""What becomes of a damaged input, each in a process of its own."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from tests.fuzz.commands import Target
from wsipipe.cli.main import main

CPU_SECONDS, MEMORY_KB = 60, 4_000_000


def outcome(target: Target, seeds: Path, raw: bytes, intact: dict[str, bytes] | None) -> str:
    """Return refused, same, differs, warned, or (a fault) traceback, hang or silent, with the last lines said.

    *intact* are the outputs of the intact input; None skips the comparison.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        path, out, said = work / target.file, work / "out", work / "said"
        path.write_bytes(raw)
        out.mkdir()
        child = os.fork()
        if not child:
            _run(target.args(path, seeds, out), said)
        _, status, used = os.wait4(child, 0)
        text = said.read_text(errors="replace")
        if (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU) or used.ru_maxrss > MEMORY_KB:
            return "hang"
        if not os.WIFEXITED(status) or "Traceback" in text:
            return f"traceback: {text[-600:]}"
        if os.WEXITSTATUS(status):
            return "refused"
        if intact is None or results(out) == intact:
            return "same"
        return "warned" if "warning" in text else "silent"


def results(out: Path) -> dict[str, bytes]:
    """Return the output files by name."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


def _run(args: list[str], said: Path) -> None:
    """Run a command in this process, a child, and end it."""
    code = 99
    try:
        with said.open("w", buffering=1) as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            sys.stdout = sys.stderr = stream
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
            code = main(args)
            sys.stdout.flush()
            sys.stderr.flush()
    except BaseException:  # noqa: BLE001 whatever it is, it is to be seen
        with said.open("a") as stream:
            traceback.print_exc(file=stream)
    finally:
        os._exit(code)
