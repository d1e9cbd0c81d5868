"""The check of a GPU runs, small, on any machine; what goes wrong in it stands in the report and in the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.gpu_check import __main__ as command
from tests.gpu_check.context import Context


def test_the_small_check_passes_and_reports(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu_check", "--small", "--device", "cpu", "--out", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    sections = report["sections"]
    assert report["failed"] == [] and report["machine"]["device"] == "cpu"
    assert list(sections) == [s.title for s in command.SECTIONS if not s.only_large]
    one, two = sections["End to end"]["rows"]
    assert one["cells"] == two["cells"] > 0 and one["same bytes"] and two["same bytes"]
    resumed = sections["Resume"]["rows"][0]
    assert 0 < resumed["after"] < resumed["tiles"] <= resumed["before"] + resumed["after"]
    text = (tmp_path / "report.md").read_text()
    assert all(f"## {title}" in text for title in sections) and "**no**" not in text


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(torch.device("cpu"), tmp_path, command.SMALL, time.monotonic(), 60)


def test_one_error_does_not_stop_the_others_and_time_is_kept(context: Context) -> None:
    def broken(context: Context) -> Iterator[dict[str, Any]]:
        yield {"tiles/s": 3.0}
        raise RuntimeError("no kernel image is available")

    def wrong(context: Context) -> Iterator[dict[str, Any]]:
        yield {"same bytes": False}

    sections = (
        command.Section("A", broken),
        command.Section("B", wrong),
        command.Section("C", wrong, needs=1e9),
    )
    a, b, c = found = list(command.check(context, sections))
    assert a.rows == [{"tiles/s": 3.0}] and "no kernel image" in a.error and not b.error
    assert b.wrong == ["same bytes: no"] and not c.wrong and "not begun" in c.rows[0]["note"]
    text = command.markdown({"device": "cpu"}, found)
    assert "**failed**" in text and "| **no** |" in text and "not begun" in text
