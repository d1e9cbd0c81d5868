"""`wsipipe segment` on several slides at the command line: what it says, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsipipe.cli.main import main


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run(*args: object) -> int:
    return main(["segment", *map(str, args)])


@pytest.fixture
def slides(tmp_path: Path, small_slide: Path) -> Path:
    """Return a folder of a slide, a picture of glass, and a file that is no slide."""
    folder = tmp_path / "slides"
    folder.mkdir()
    (folder / "small.tiff").write_bytes(small_slide.read_bytes())
    Image.fromarray(np.full((300, 400, 3), 241, np.uint8)).save(folder / "glass.png")
    (folder / "bad.svs").write_text("no slide")
    return folder


def test_table_report_and_exit_code(
    slides: Path, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["-o", f"{out}/", "--model", tiny_model, "--device", "cpu", "--format", "parquet"]
    sources = [slides / "small.tiff", slides / "glass.png", slides / "bad.svs"]
    assert run(*sources, *options, "--mpp", 0.5) == 9
    said, aside = capfd.readouterr()
    rows = {line.split()[0]: line for line in said.splitlines()}
    assert said.splitlines()[0].split() == ["slide", "status", "cells", "mm²", "cells/mm²", "s", "note"]
    assert said.splitlines()[1].startswith("bad"), "failures come first"
    assert " failed " in rows["bad"] and "no tissue found" in rows["glass"] and " done " in rows["small"]
    assert f"2 done, 1 failed, 0 skipped; see {out}/report.json" in said and "bottleneck: " in said
    assert "[3/3]" in aside
    report = json.loads((out / "report.json").read_text())
    assert report["counts"] == {"done": 2, "failed": 1, "skipped": 0}
    assert run(*sources[:2], *options, "--mpp", 0.5) == 0
    assert "0 done, 0 failed, 2 skipped" in capfd.readouterr().out
    assert run(slides, *options, "--mpp", 0.5, "--config", _config(tmp_path)) == 9
    assert "1 failed" in capfd.readouterr().out, "a picture in a folder is not taken for a slide"


def _config(folder: Path) -> Path:
    path = folder / "run.toml"
    path.write_text("[batch]\nrecursive = false\n[cluster]\ndevices = ''\n[store]\ncodec = 'none'\n")
    return path


def test_one_slide_into_a_folder(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert run(slides / "small.tiff", "-o", out, "--model", tiny_model, "--bounds", "0,0,200,200") == 0
    assert {p.name for p in out.iterdir()} == {"report.json", "small.parquet", "small.geojson.gz", "small.run.json"}


def test_dry_run(slides: Path, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(slides, "-o", f"{tmp_path}/out/", "--model", tiny_model, "--dry-run") == 9
    said = capfd.readouterr().out
    assert "small: 0." in said and "9 tiles" in said and "bad: would fail: cannot open" in said
    assert "2 slides, 0." in said and "1 would fail" in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        (["-o", "cells.geojson"], "several slides need one folder, as in -o out/"),
        (["-o", "a/", "-o", "b/"], "several slides need one folder"),
    ],
)
def test_outputs_that_do_not_do(slides: Path, outputs: list[str], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(slides, *outputs) == 6
    assert says in capfd.readouterr().err


def test_options_that_do_not_go_together(slides: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(slides, "-o", f"{tmp_path}/out/", "--overlay", "a.png") == 2
    assert "--format parquet,png" in capfd.readouterr().err
    assert run(slides, "-o", f"{tmp_path}/out/", "--stage", tmp_path, "--scheduler", "tcp://127.0.0.1:9") == 2
    assert "--stage copies to a disk of this machine" in capfd.readouterr().err
    assert run(slides, "-o", f"{tmp_path}/out/", "--devices", "cpu,cuda:0") == 2
    assert "expected devices of one kind" in capfd.readouterr().err
