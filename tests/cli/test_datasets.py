"""The annotated sets of a TOML file."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsipipe.cli.datasets import specs_in
from wsipipe.cli.options import read_config
from wsipipe.errors import SettingsError
from wsipipe.labels import DatasetSpec


@pytest.mark.parametrize(
    "line",
    ["weight = ''", "weight = 0", "weight = true", f"weight = 1{'0' * 400}", "patient = 1", "path = 1", "merged = 1",
     "classes = 'a'", "classes = [1]", "format = []"],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(line: str, tmp_path: Path) -> None:
    lines = {"path": "path = 'set'"} | {line.split(" ")[0]: line}
    (tmp_path / "run.toml").write_text("[[datasets]]\n" + "\n".join(lines.values()) + "\n")
    with pytest.raises(SettingsError, match=rf"run\.toml \[\[datasets\]\] {line.split(' ')[0]} is .*; expected"):
        specs_in(read_config(tmp_path / "run.toml"))


def test_values_arrive(tmp_path: Path) -> None:
    text = "[[datasets]]\npath = 'set'\nmpp = 0.5\nweight = 2\nclasses = ['a', 'b']\npartial = true\n"
    (tmp_path / "run.toml").write_text(text)
    assert specs_in(read_config(tmp_path / "run.toml")) == [
        DatasetSpec("set", 0.5, weight=2, classes=("a", "b"), partial=True)
    ]
