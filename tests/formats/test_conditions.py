"""Conditions on cells: what is read, which cells meet them, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.masters import write_master
from wsipipe.cli.main import main
from wsipipe.errors import SettingsError
from wsipipe.formats.conditions import Condition, met, read_conditions
from wsipipe.formats.parquet import metadata, read_cells

N = 50
XY = np.random.default_rng(5).uniform((20, 20), (1180, 780), (N, 2))
AREA = np.linspace(1, 99, N)
AREA[7] = np.nan
QUALITY = np.arange(N) % 7


@pytest.fixture
def master(tmp_path: Path) -> Path:
    measures = {"area_um2": AREA, "quality": QUALITY.astype(float)}
    return write_master(tmp_path / "cells.parquet", XY, np.arange(N) % 2, measures=measures)


def test_reads_conditions(master: Path) -> None:
    schema = pq.read_schema(master)
    found = read_conditions("area_um2 >= 20,probability<0.9 and oversize=no, quality=fine|out of focus|6", schema)
    assert found == (
        Condition("area_um2", ">=", (20.0,)),
        Condition("probability", "<", (0.9,)),
        Condition("oversize", "=", (0.0,)),
        Condition("quality", "=", (0.0, 2.0, 6.0)),
    )
    assert read_conditions("  ", schema) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("area_um2", "is no condition; expected some such as"),
        ("size>=3", "no column 'size'; expected one of class_probability"),
        ("geometry=1", "no column 'geometry'"),
        ("area_um2>=big", "the value is 'big'; expected a number"),
        ("area_um2>=nan", "expected a number"),
        ("area_um2>=1|2", "go with = alone, not >="),
        ("oversize>0", "go with = alone, not >"),
        ("oversize=maybe", "expected a number, or one of no, yes"),
        ("quality=bad", "expected a number, or one of fine, glass"),
        ("area_um2>=3<=5", "is no condition"),
    ],
)
def test_refuses_what_is_no_condition(master: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError, match="--where: ") as told:
        read_conditions(text, pq.read_schema(master))
    assert words in str(told.value)


def test_cells_without_a_number_do_not_meet_a_condition(master: Path) -> None:
    table = pq.read_table(master)
    area = table["area_um2"].to_numpy()
    for text, wanted in (
        ("area_um2>=50", area >= 50),
        ("area_um2<50", area < 50),
        ("quality=fine|dust, area_um2>0", np.isin(table["quality"].to_numpy(), [0, 6]) & (area > 0)),
        ("oversize=yes", np.zeros(N, bool)),
        ("oversize=no", np.ones(N, bool)),
    ):
        keep = met(table, read_conditions(text, table.schema))
        np.testing.assert_array_equal(keep, wanted)
    assert not met(table, read_conditions("area_um2>=0", table.schema))[np.isnan(area)].any()


def test_convert_takes_conditions(master: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "some.parquet"
    assert main(["convert", str(master), "-o", str(out), "--where", "area_um2>=50,oversize=no"]) == 0
    cells = read_cells(master)
    assert read_cells(out)["cell_id"].tolist() == cells["cell_id"][cells["area_um2"] >= 50].tolist()
    assert metadata(out)["subset"]["where"] == "area_um2>=50,oversize=no"
    assert main(["convert", str(master), "-o", str(tmp_path / "no.csv"), "--where", "size>3"]) == 2
    assert "no column 'size'" in capfd.readouterr().err and not (tmp_path / "no.csv").exists()
