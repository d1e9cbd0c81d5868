"""What measures other systems measures, and keeps them away from the package."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.peers import __main__ as peers
from tests.benchmarks.peers.systems import OWN, SYSTEMS, System

ROOT = Path(__file__).parents[2]


def imported(program: Path) -> set[str]:
    """Return the top-level packages that *program* imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(program.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_each_has_a_program_of_its_own_that_knows_nothing_of_ours(system: System) -> None:
    assert "common" in imported(system.program) and not imported(system.program) & {"wsipipe", "tests"}
    assert all("==" in package or package == "tf-keras" for package in system.packages), "versions are part of a figure"


def test_the_plug_ins_alone_import_them() -> None:
    names = {"stardist", "cellpose", "instanseg", "csbdeep", "tensorflow"}
    found = [path for path in (ROOT / "wsipipe").rglob("*.py") if imported(path) & names]
    assert {path.parent.name for path in found} == {"plugins"}


def test_a_process_is_measured_whole(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"import os, sys\nsys.path.append({str(OWN)!r})\nfrom common import Stopwatch, tell\n"
        "filled = bytearray(b'1') * 200_000_000\ndel filled\nprint('loading')\n"
        "with Stopwatch() as watch:\n    sum(range(1_000_000))\ntell(watch, os.environ['OMP_NUM_THREADS'], 7)\n"
    )
    found = peers.measured([sys.executable, program], 3)
    assert found["what"] == "3" and found["objects"] == 7 and 0 < found["cpu"] < found["process_cpu"]
    assert 190 < found["peak_mb"] < 400 and 0 < found["wall"] < found["process_wall"]
    cells = peers.row("one", 0.5, found).split()
    assert cells[:2] == ["one", "0.5"] and cells[3] == f"{found['process_cpu'] / 0.5:.2f}" and cells[-1] == "nuclei"


def test_one_that_fails_says_why(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit('no weights of that kind')")
    with pytest.raises(RuntimeError, match="ended with 1: no weights of that kind"):
        peers.measured([sys.executable, program], 1)


def test_each_sees_the_picture_at_its_own_resolution() -> None:
    picture = np.zeros((600, 800, 3), np.uint8)
    seen, megapixels = peers.picture_for(System("one", (), 0.5), picture, 0.25)
    assert seen.shape == (300, 400, 3) and megapixels == 0.48
    seen, megapixels = peers.picture_for(System("large", (), 0.5, megapixels=0.04), picture, 0.25)
    assert seen.shape == (200, 200, 3) and megapixels == 0.16, "what it shows of the picture as given"


def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", "--help"])
    with pytest.raises(SystemExit) as end:
        peers.main()
    assert end.value.code == 0 and "python -m tests.benchmarks.peers" in capsys.readouterr().out
    assert "tests.benchmarks.peers" in (ROOT / "Makefile").read_text()
