"""What is told of a run where there is no terminal: a line now and then, with every batch of tiles in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wsipipe.cli import progress
from wsipipe.cli.main import main


def test_the_log_moves_on_with_every_batch_of_tiles(
    small_slide: Path,
    tiny_model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1.0)
    command = ["segment", str(small_slide), "-o", str(tmp_path / "cells.parquet"), "--model", str(tiny_model)]
    assert main([*command, "--device", "cpu", "--precision", "fp32", "--batch", "2", "--block", "3072"]) == 0
    told = [(int(n), int(of)) for n, of in re.findall(r"^tiles (\d+)/(\d+), cells 0/1$", capfd.readouterr().err, re.M)]
    assert [n for n, _ in told[:4]] == [2, 4, 6, 8], "it is a single block"
    assert told[-1][0] == told[-1][1]


def test_a_line_now_and_then(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.TerminalProgress() as told:
        told.start("tiles", 100)
        for _ in range(100):
            told.advance("tiles")
        assert capfd.readouterr().err == "", "less than a quarter of a minute"
        told._spoke -= progress.QUIET_SECONDS + 1
        told.advance("tiles", 0)
        assert capfd.readouterr().err == "tiles 100/100\n"
