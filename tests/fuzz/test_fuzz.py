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

SHARE = "2"
"""Seeds of each."""
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_inputs(part: int, tmp_path: Path) -> None:
    """A process of its own makes the children: the threads of this one would be missing in them."""
    command = [sys.executable, "-m", "tests.fuzz", "--count", SHARE, "--log", str(tmp_path / "log.jsonl")]
    one = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, "--part", f"{part}/{PARTS}"], cwd=ROOT, env=os.environ | one, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    assert "| **all** |" in done.stdout
