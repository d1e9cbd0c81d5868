"""Damaged inputs are refused in one line or give what the intact ones give: never a traceback, a hang or a surprise.

A share of the seeds; ``make fuzz`` takes hundreds for each command and kind of input.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fuzz.cases import CASES

SHARE = "1"
"""Seeds of each of every second pair of a command and a kind of input."""
PARTS = 4


@pytest.mark.parametrize("asked", [["--count", SHARE, "--part", f"{2 * part}/{2 * PARTS}"] for part in range(PARTS)])
def test_damaged_inputs(asked: list[str], tmp_path: Path) -> None:
    """A process of its own makes the children: the threads of this one would be missing in them."""
    assert "| **all** |" in _fuzz(tmp_path, "--log", str(tmp_path / "log.jsonl"), *asked)


def test_every_kind_of_fault_that_was_found_once(tmp_path: Path) -> None:
    said = _fuzz(tmp_path, "--cases")
    assert sum(name in said for name in CASES) == len(CASES)


def _fuzz(folder: Path, *asked: str) -> str:
    """Run ``python -m tests.fuzz``, which must find nothing, and return what it says."""
    one = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "tests.fuzz", *asked]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | one, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return done.stdout
