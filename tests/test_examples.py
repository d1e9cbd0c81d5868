"""The examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("name", [p.name for p in sorted(EXAMPLES.glob("*.py"))])
def test_example_runs(name: str) -> None:
    command, environment = [sys.executable, str(EXAMPLES / name)], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert "cells" in done.stdout
