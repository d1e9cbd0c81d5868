"""`wsipipe build-corpus` at the command line: what it prints, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Phantom
from wsipipe.cli.build_corpus import listed, size
from wsipipe.cli.main import main
from wsipipe.corpus import open_corpus
from wsipipe.slide import open_slide


@pytest.fixture
def folder(phantom: Phantom, tmp_path: Path) -> Path:
    """Return a folder with two fields of the drawn slide."""
    where = tmp_path / "fields"
    where.mkdir()
    with open_slide(phantom.path) as slide:
        for name, x in (("A1", 300), ("B1", 620)):
            Image.fromarray(slide.read_region(0, x, 300, 260, 200)).save(where / f"{name}.png")
    return where


def run(*args: object) -> int:
    return main(["build-corpus", *map(str, args), "--patch", "64", "--threads", "1", "--max-background", "1"])


def test_prints_what_was_kept_and_writes_beside(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.zarr"
    command = (
        folder,
        "-o",
        out,
        "--image-mpp",
        "0.25",
        "--mpp",
        "native",
        "--patient",
        r"(\w)\d",
        "--organ",
        r"\w(\d)",
    )
    assert run(*command) == 0
    said = capfd.readouterr().out
    corpus = open_corpus(out)
    assert f"{len(corpus)} of 24 kept, 64 px" in said and "2 patients" in said and "0.25: " in said
    assert set(corpus.table["patient"].to_pylist()) <= {"A", "B"} and set(corpus.table["organ"].to_pylist()) == {"1"}
    assert all((tmp_path / f"c.{end}").exists() for end in ("report.json", "sheet.png", "organs.png"))
    assert run(*command) == 0
    assert "up to date" in capfd.readouterr().err


def test_dry_run_writes_nothing(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "-o", tmp_path / "c.zarr", "--image-mpp", "0.5", "--dry-run") == 0
    said = capfd.readouterr().out
    assert "24 at most" in said and "stored" in said and "free" in said
    assert [p.name for p in tmp_path.iterdir() if "c." in p.name] == []


def test_the_exit_code_tells_of_slides_that_were_skipped(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "C1.jpg").write_bytes(b"\xff\xd8\xff broken")
    assert run(folder, "-o", tmp_path / "c.zarr", "--image-mpp", "0.5") == 3
    said, aside = capfd.readouterr()
    assert "failed" in said and "fields/C1.jpg" in said and "1 of 3 slides could not be used" in aside
    assert len(open_corpus(tmp_path / "c.zarr")) > 0
    assert run(folder, "-o", tmp_path / "d.zarr", "--image-mpp", "0.5", "--dry-run") == 3


def test_what_was_excluded_is_named(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    held = tmp_path / "held"
    held.mkdir()
    with Image.open(folder / "A1.png") as picture:
        picture.save(held / "test.jpg", quality=90)
    args = (folder, "-o", tmp_path / "c.zarr", "--image-mpp", "0.5", "--exclude", held, "--max-overlap", "0")
    assert main(["build-corpus", *map(str, args), "--patch", "192", "--max-background", "1"]) == 0
    said = capfd.readouterr().out
    assert "fields/A1.png at 0, 0 shows held/test.jpg" in said
    assert set(open_corpus(tmp_path / "c.zarr").table["slide"].to_pylist()) == {"fields/B1.png"}


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--mpp", "0.01"], 2, "0.05 to 5 µm/px, or native"),
        (["--mpp", "raw"], 2, "'raw' is no resolution"),
        (["--val", "0.8", "--test", "0.8"], 2, "add up to at most 1"),
        (["--val", "2"], 2, "--val: val is 2.0; expected 0 to 1"),
        (["--exclude", "nowhere"], 5, "nowhere: no such file"),
        (["--patient", "(x)"], 5, "does not match"),
        ([], 5, "does not state its resolution: give --image-mpp"),
    ],
)
def test_bad_input(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], args: list[str], code: int, says: str
) -> None:
    assert run(folder, "-o", tmp_path / "c.zarr", *args) == code
    error = capfd.readouterr().err
    assert says in error and "Traceback" not in error
    assert not (tmp_path / "c.zarr").exists()


def test_an_output_that_is_something_else_is_left_alone(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.zarr").mkdir()
    (tmp_path / "c.zarr/thesis.txt").write_text("dear")
    assert run(folder, "-o", tmp_path / "c.zarr", "--image-mpp", "0.5") == 6
    assert "something that is not a corpus is there" in capfd.readouterr().err
    assert (tmp_path / "c.zarr/thesis.txt").read_text() == "dear"
    assert run(folder, "-o", tmp_path / "no/such/c.zarr", "--image-mpp", "0.5") == 0, "folders are made"
    assert run(folder, "-o", folder / "A1.png" / "c.zarr", "--image-mpp", "0.5") == 6


def test_csv(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "slides.csv"
    table.write_text("path,mpp,organ,patient\nfields/A1.png,0.5,skin,P1\nfields/B1.png,0.25,bone,P2\n")
    assert run(table, "-o", tmp_path / "c.zarr") == 0
    rows = open_corpus(tmp_path / "c.zarr").slides.to_pylist()
    assert [(r["slide"], r["organ"], r["patient"], r["mpp"]) for r in rows] == [
        ("fields/A1.png", "skin", "P1", 0.5),
        ("fields/B1.png", "bone", "P2", 0.5),
    ]
    table.write_text("file\nfields/A1.png\n")
    assert run(table, "-o", tmp_path / "d.zarr") == 5
    assert "no column 'path'" in capfd.readouterr().err


def test_text() -> None:
    assert [size(n) for n in (900, 5e6, 1.25e9, 3e12)] == ["0.9 kB", "5 MB", "1.25 GB", "3 TB"]  # type: ignore[arg-type]
    assert list(listed("t", {})) == []
    lines = list(listed("t", {f"n{i}": "x" for i in range(12)}, "shows"))
    assert lines[0].split() == ["t", "n0", "shows", "x"] and len(lines) == 11 and "2 more" in lines[-1]


def test_black_pictures_are_glass_free_but_blurred(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(tmp_path / "black.png")
    assert run(tmp_path / "black.png", "-o", tmp_path / "c.zarr", "--image-mpp", "0.5") == 5
