"""Other tools that read what wsipipe writes: in this environment, or in one of their own.

spatialdata and ome-zarr want other versions of pandas and fsspec than the tested set. Where WSIPIPE_CONSUMERS names the
Python of an environment that has them (`make test-readers` makes it), the tests run there what reads our files.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PYTHON = os.environ.get("WSIPIPE_CONSUMERS", "")
"""Read when the tests are collected, before they lose their environment."""


def ask(module: str, code: str, path: Path) -> Any:
    """Run *code* where *module* is installed, with *path* as ``path``; return what it stores in ``answer``, as JSON."""
    python = sys.executable if importlib.util.find_spec(module) else PYTHON
    if not python:
        pytest.skip(f"{module} is not installed (WSIPIPE_CONSUMERS names a Python that has it)")
    script = f"import json, sys\npath = sys.argv[1]\n{code}\nprint('ANSWER', json.dumps(answer))"
    command = [python, "-W", "ignore", "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    return json.loads(line.removeprefix("ANSWER "))
