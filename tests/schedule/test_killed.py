"""Worker processes that are killed, each and every one: an end, an exit code, and a line that says where."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

AT_THE_START = """
import os, signal, sys
if "--multiprocessing-fork" in sys.orig_argv and "spawn_main" in " ".join(sys.orig_argv):
    os.kill(os.getpid(), signal.SIGKILL)
"""
AMID_A_BLOCK = """
import os, signal, sys, threading, time

def look():
    while "wsipipe.schedule.process" not in sys.modules:
        time.sleep(0.05)
    while True:
        for frame in list(sys._current_frames().values()):
            while frame is not None:
                if frame.f_code.co_name == "do" and frame.f_globals.get("__name__") == "wsipipe.schedule.process":
                    os.kill(os.getpid(), signal.SIGKILL)
                frame = frame.f_back
        time.sleep(0.005)

if "--multiprocessing-fork" in sys.orig_argv and "spawn_main" in " ".join(sys.orig_argv):
    threading.Thread(target=look, daemon=True).start()
"""
"""Programs that kill their own process, as the system does for lack of memory."""


def segment(slide: Path, model: Path, folder: Path, killer: str) -> tuple[int, str, list[str]]:
    """Segment with two workers that end as *killer* says; return the exit code, the error, and what is left behind."""
    (folder / "own").mkdir()
    (folder / "own" / "sitecustomize.py").write_text(killer)
    paths = os.pathsep.join(filter(None, (str(folder / "own"), str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "wsipipe", "segment", str(slide), "-o", str(folder / "out" / "cells.parquet")]
    command += ["--model", str(model), "--device", "cpu", "--precision", "fp32", "--workers", "2", "--block", "256"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=900, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("wsipipe: error: ")]
    return done.returncode, error, sorted(p.name for p in (folder / "out").glob("[!.]*"))


def test_killed_as_they_begin(small_slide: Path, tiny_model: Path, tmp_path: Path) -> None:
    code, error, left = segment(small_slide, tiny_model, tmp_path, AT_THE_START)
    assert code not in (0, 1) and "a worker process did not start" in error and "fewer --workers" in error
    assert left == []


def test_killed_again_and_again_at_the_same_block(small_slide: Path, tiny_model: Path, tmp_path: Path) -> None:
    code, error, left = segment(small_slide, tiny_model, tmp_path, AMID_A_BLOCK)
    assert code not in (0, 1) and re.search(r"again and again at block \d|blocks under way: \d", error), error
    assert "fewer --workers" in error
    assert left == []
