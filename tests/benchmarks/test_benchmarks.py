"""Every benchmark can be imported and explains itself, and `make bench` runs all that need nothing of the user's."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

BENCHMARKS = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
NEED_IMAGES = {"bench_corpus", "bench_exclude", "bench_mosaic"}
BY_HAND = {"bench_index", "bench_viewer"}
"""Of a model rather than of the machine, or of a browser."""


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"tests.benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0 and f"python -m tests.benchmarks.{name}" in capsys.readouterr().out


def test_make_bench_runs_them_all() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert set(re.findall(r"tests\.benchmarks\.(bench_\w+)", makefile)) == set(BENCHMARKS) - NEED_IMAGES - BY_HAND
