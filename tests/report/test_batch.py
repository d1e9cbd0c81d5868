"""The report of a folder, and what is made of a batch's own report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Phantom
from tests.masters import truth_master, write_master
from wsipipe.cli.main import main
from wsipipe.report import entries_of


@pytest.fixture
def results(tmp_path: Path, phantom: Phantom) -> Path:
    """Return a folder with one slide's cells and run record, and another's whose slide is gone."""
    folder = tmp_path / "results"
    (folder / "deep").mkdir(parents=True)
    truth_master(folder / "one.parquet", phantom)
    record = {"fingerprint": "r" * 64, "slide": str(phantom.path), "seconds": {"network": 2.0, "wall": 3.0}}
    (folder / "one.run.json").write_text(json.dumps(record))
    write_master(folder / "deep" / "two.parquet", np.array([[50.0, 50.0]]))
    (folder / ".one.parquet.work").mkdir()
    (folder / ".one.parquet.work" / "cells.parquet").write_bytes(b"half")
    return folder


def test_reads_the_batchs_report_tolerantly() -> None:
    rows = [
        {"slide": "/data/x/broken.svs", "name": "x/broken", "status": "failed", "reason": "/data/x/broken.svs: cut"},
        {"slide": "s3://bucket/old.svs", "status": "skipped", "later": {"unknown": 1}},
        {"slide": "late.svs", "status": "pending"},
        {"status": "done"},
        {"slide": "/data/y/broken.svs", "name": "y/broken", "status": "done"},
        {"slide": "/data/z/broken.svs", "name": "patient 7", "status": "done"},
        "nonsense",
    ]
    found = entries_of({"format": 99, "slides": rows})
    assert [(e.name, e.state, e.reason) for e in found] == [
        ("x/broken.svs", "failed", "broken.svs: cut"),
        ("old.svs", "skipped", ""),
        ("late.svs", "skipped", "pending"),
        ("y/broken.svs", "done", ""),
        ("patient 7 (broken.svs)", "done", ""),
    ]
    assert entries_of(rows) == found
    assert entries_of({"slides": None}) == entries_of("text") == entries_of(None) == []


def test_a_folder(results: Path, phantom: Phantom, capfd: pytest.CaptureFixture[str]) -> None:
    told = {"slides": [{"slide": "/secret/bad.svs", "status": "failed", "reason": "not a slide"}]}
    (results / "report.json").write_text(json.dumps(told))
    assert main(["report", str(results), "--title", "My <batch>"]) == 0
    index = (results / "report.html").read_text()
    assert "My &lt;batch&gt;" in index and "not a slide" in index and "/secret" not in index
    assert 'href="one.report.html"' in index and 'href="deep/two.report.html"' in index
    assert index.index("bad.svs") < index.index("one.report.html")  # what failed comes first
    assert (results / "deep" / "two.report.html").exists()
    assert index.count('class="thumb"') == 1
    assert index.count('<svg class="spark"') == 2 and "on one axis for all" in index
    one = (results / "one.report.html").read_text()
    assert 'class="tissue"' in one and phantom.path.name in one
    assert "no pictures" in capfd.readouterr().err


def test_pages_that_are_up_to_date_stay(results: Path) -> None:
    page = results / "one.report.html"
    assert main(["report", str(results)]) == 0
    stamp = page.stat().st_mtime_ns
    assert main(["report", str(results)]) == 0
    assert page.stat().st_mtime_ns == stamp
    assert main(["report", str(results), "--force"]) == 0
    assert page.stat().st_mtime_ns != stamp


def test_one_file_and_a_slide_given(results: Path, phantom: Phantom, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    (results / "one.run.json").unlink()
    args = ["report", str(results / "one.parquet"), "-o", str(out), "--slide", str(phantom.path)]
    assert main(args) == 0
    assert 'class="tissue"' in out.read_text()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["empty"], "holds no cells"),
        (["text.parquet"], "not a cells file"),
        (["two.parquet", "--slide", "PHANTOM"], "1200 x 800"),
        (["two.parquet", "--slide", "gone.svs"], "no such slide"),
        (["two.parquet", "-o", "two.parquet/page.html"], "a file where a folder is expected"),
        (["empty", "--slide", "x.svs"], "folder"),
    ],
)
def test_says_what_is_wrong(
    tmp_path: Path,
    phantom: Phantom,
    args: list[str],
    words: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text.parquet").write_text("no parquet")
    write_master(Path("two.parquet"), np.array([[50.0, 50.0]]))
    args = [str(phantom.path) if a == "PHANTOM" else a for a in args]
    assert main(["report", *args]) != 0
    said = capfd.readouterr().err
    assert words in said and said.startswith("wsipipe: error:") and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.html"))


def test_segment_with_a_report(phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["segment", str(phantom.path), "--bounds", "500,400,600,500", "--device", "cpu", "--report", "-o"]
    assert main([*command, str(tmp_path / "cells.geojson")]) == 2
    assert "add -o NAME.parquet" in capfd.readouterr().err and not list(tmp_path.iterdir())
    assert main([*command, str(tmp_path / "cells.parquet")]) == 0
    page = (tmp_path / "cells.report.html").read_text()
    assert "--bounds 500,400,600,500" in page and "cmd-t" in page and 'class="tissue"' in page
    assert "cells.report.html" in capfd.readouterr().out
