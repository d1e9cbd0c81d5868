"""The log has one row a step, however often a training is killed and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsipipe.errors import OutputError
from wsipipe.train.log import Log, has_tensorboard


def write(log: Log, *steps: int) -> None:
    for step in steps:
        log.write({"step": step, "loss": 1 / step, "lr": 1e-3})


def test_rows_and_header(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.csv", header=True)
    log.rewind(0)
    write(log, 1, 2)
    assert log.path.read_text() == "step,loss,lr\n1,1.000000,1.000e-03\n2,0.500000,1.000e-03\n"


@pytest.mark.parametrize("header", [False, True])
def test_rows_after_the_checkpoint_and_a_torn_one_go(tmp_path: Path, header: bool) -> None:
    whole, parts = Log(tmp_path / "whole.csv", header=header), Log(tmp_path / "parts.csv", header=header)
    for log in (whole, parts):
        log.rewind(0)
    write(whole, *range(1, 13))
    write(parts, *range(1, 11))
    with parts.path.open("a") as file:
        file.write("11,0.09")  # killed here
    parts.rewind(9)
    write(parts, 10, 11, 12)
    assert parts.path.read_bytes() == whole.path.read_bytes()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    (tmp_path / "log.csv").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"cannot write .*log\.csv: No space left on device; .* resumes the run"):
        write(Log(tmp_path / "log.csv"), 1)


@pytest.mark.skipif(not has_tensorboard(), reason="TensorBoard is not installed")
def test_tensorboard_gets_every_column(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.csv", board=tmp_path / "board")
    log.rewind(0)
    write(log, 1, 2)
    log.close()
    (file,) = (tmp_path / "board").iterdir()
    assert b"loss" in file.read_bytes() and b"lr" in file.read_bytes()


@pytest.mark.skipif(has_tensorboard(), reason="TensorBoard is installed")
def test_without_tensorboard_only_the_csv_is_written(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.csv", board=tmp_path / "board")
    log.rewind(0)
    write(log, 1)
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
