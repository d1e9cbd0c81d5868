"""`wsipipe convert`, `classify`, `measure` and `features` at the command line: what they say, and of bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import Phantom
from tests.formats.conftest import make_table, master  # noqa: F401
from wsipipe.cli.main import main
from wsipipe.formats.exports import FORMATS
from wsipipe.formats.parquet import metadata

Make = Callable[..., pa.Table]
Master = Callable[..., Path]


@pytest.fixture
def about() -> dict[str, object]:
    return {"fingerprint": "x", "size": [20_000, 20_000], "bounds": None, "mpp": [0.25, 0.25], "mpp_source": "x"}


@pytest.fixture
def cells(make_table: Make, master: Master) -> Path:  # noqa: F811
    return master(make_table(100), working_mpp=[2.0, 2.0])


def run(*args: object) -> int:
    return main([str(arg) for arg in args])


def test_converts_into_everything(cells: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = [f"out{suffix}" for f in FORMATS.values() for suffix in f.suffixes]
    assert run("convert", cells, *(arg for name in names for arg in ("-o", tmp_path / name))) == 0
    said = capfd.readouterr().out
    assert said.startswith("100 cells: wrote ") and all(str(tmp_path / name) in said for name in names)
    assert all((tmp_path / name).exists() for name in names)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_converts_a_part(cells: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "part.cells"
    assert run("convert", cells, "-o", out, "--to", "parquet", "--classes", "Neoplastic") == 0
    count = metadata(cells)["cells_by_class"]["Neoplastic"]
    assert capfd.readouterr().out.startswith(f"{count} of 100 cells: wrote") and metadata(out)["cells"] == count


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("-o", "{out}/a.xyz"), 6, "unknown kind of output"),
        (("-o", "{cells}"), 6, "is the input itself"),
        (("-o", "{out}/a.csv", "--slide", "{slide}"), 2, "none of the outputs is one"),
        (("-o", "{out}/a.zarr", "--slide", "{slide}"), 2, "not the slide that these cells were found on"),
        (("-o", "{out}/a.csv", "--classes", "Tumour"), 2, "no class 'Tumour'"),
        (("-o", "{out}/new/a.csv", "--classes", "Tumour"), 2, "no class 'Tumour'"),
        (("-o", "{out}/a.csv", "--to", "excel"), 2, "'excel' is not one of"),
        (("-o", "{cells}/a.csv"), 6, "a file where a folder is expected"),
        (("-o", "{cells}/a.zarr"), 6, "a file where a folder is expected"),
    ],
)
def test_bad_input_is_told_in_one_line(
    cells: Path, phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str], args: tuple[str, ...],
    code: int, said: str,
) -> None:  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    filled = [arg.format(out=tmp_path, cells=cells, slide=phantom.path) for arg in args]
    assert run("convert", cells, *filled) == code
    told = capfd.readouterr().err
    assert said in told and told.startswith("wsipipe: error: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_classify_tells_its_scores(cells: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("convert", cells, "-o", tmp_path / "labels.geojson") == 0
    out, save = tmp_path / "typed.parquet", tmp_path / "types.json"
    assert run("classify", cells, "--fit", tmp_path / "labels.geojson", "-o", out, "--save", save) == 0
    said = capfd.readouterr().out
    assert all(word in said for word in ("labelled cells: Inflammatory", "recall", "left out", "guessing: 0.500"))
    assert sum(metadata(out)["cells_by_class"].values()) == 100
    assert json.loads(save.read_text())["classes"] == ["Inflammatory", "Neoplastic"]
    assert run("classify", cells, "-o", out) == 2
    assert "either --fit LABELS" in capfd.readouterr().err


def test_measure_refuses_another_slide(
    cells: Path, phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("measure", cells, "--slide", phantom.path, "-o", tmp_path / "m.parquet") == 2
    assert "fingerprints differ" in capfd.readouterr().err and not (tmp_path / "m.parquet").exists()


@pytest.mark.parametrize("command", ["convert", "classify", "measure", "features"])
def test_help_shows_examples(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    said = capfd.readouterr().out
    assert "Examples:" in said and f"wsipipe {command} " in said
