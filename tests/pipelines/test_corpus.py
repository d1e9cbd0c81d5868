"""`build-corpus` from end to end: what is kept, the same bytes however it went, and what is said of bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Phantom
from wsipipe.corpus import open_corpus
from wsipipe.corpus.report import beside, report
from wsipipe.corpus.sources import Naming
from wsipipe.errors import DatasetError, OutputError, SlideChanged
from wsipipe.pipelines.corpus import CorpusJob, run_build_corpus
from wsipipe.pipelines.corpus_forecast import forecast
from wsipipe.schedule.progress import Progress
from wsipipe.settings import CorpusSettings
from wsipipe.slide import open_slide

SETTINGS = CorpusSettings(patch=64, shard=8, threads=2, max_background=0.6, val=0.34, duplicates=-1)


class Heard(Progress):
    """Remembers what was said; stops the run at a slide."""

    def __init__(self, stop_at: int = -1) -> None:
        self.lines: list[str] = []
        self._left = stop_at

    def advance(self, stage: str, steps: int = 1) -> None:
        self._left -= steps if stage == "slides" else 0
        if self._left == 0:
            raise KeyboardInterrupt

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def pictures(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of eight pictures of 256 px, two each of four patients, cut from the drawn slide."""
    folder = tmp_path_factory.mktemp("corpus") / "pictures"
    folder.mkdir()
    with open_slide(phantom.path) as slide:
        whole = slide.read_region(0, 0, 0, *slide.info.size)
    squares = [whole[y : y + 256, x : x + 256] for y in range(0, 1024, 256) for x in range(0, 1536, 256)]
    squares.sort(key=lambda square: float(square.mean()))
    for i, square in enumerate(squares[:8]):
        Image.fromarray(square).save(folder / f"P{i // 2}-{i % 2}.png")
    return folder


def job(folder: Path, output: Path, settings: CorpusSettings = SETTINGS, **more: object) -> CorpusJob:
    naming = Naming(r"(P\d)", r"P\d-(\d)")
    return CorpusJob((str(folder),), output, image_mpp=0.5, settings=settings, naming=naming, **more)  # type: ignore[arg-type]


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def built(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_build_corpus(job(pictures, tmp_path_factory.mktemp("built") / "corpus.zarr"), Progress())


def test_patches_are_the_pictures_own_pixels(built: Path, pictures: Path) -> None:
    corpus = open_corpus(built)
    rows = corpus.table.to_pylist()
    assert len(corpus) == len(rows) > 60
    for index in range(0, len(corpus), 9):
        row = rows[index]
        with Image.open(pictures.parent / row["slide"]) as opened:
            picture = np.asarray(opened)
        x, y = row["x_base"], row["y_base"]
        assert np.array_equal(corpus.read(index), picture[y : y + 64, x : x + 64])
        assert (row["mpp"], row["patient"], row["organ"]) == (0.5, row["slide"][9:11], row["slide"][12])


def test_no_patient_crosses_splits(built: Path) -> None:
    table = open_corpus(built).table.to_pandas()
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert set(table["split"]) == {"train", "val"} and set(table["patient"]) == {"P0", "P1", "P2", "P3"}
    assert table[table["split"] == "val"]["patient"].nunique() == 1


def test_report_and_pictures(built: Path) -> None:
    corpus, paths = open_corpus(built), beside(built)
    found = json.loads(paths["report"].read_text())
    assert found == json.loads(json.dumps(report(corpus)))
    assert found["patches"] == len(corpus) == sum(part["patches"] for part in found["splits"].values())
    assert found["patches"] + sum(found["dropped"].values()) == 8 * 16
    assert sum(by["kept"] for by in found["by_slide"].values()) == len(corpus)
    for name in ("sheet", "organs"):
        with Image.open(paths[name]) as picture:
            assert picture.size[0] >= 640


def test_the_same_bytes_with_any_number_of_threads(built: Path, pictures: Path, tmp_path: Path) -> None:
    one = run_build_corpus(job(pictures, tmp_path / "corpus.zarr", _with(threads=1)), Progress())
    assert content(one) == content(built)
    for name, path in beside(one).items():
        assert path.read_bytes() == beside(built)[name].read_bytes()


@pytest.mark.parametrize("stop", [1, 5])
def test_interrupted_and_resumed_gives_the_same_bytes(built: Path, pictures: Path, tmp_path: Path, stop: int) -> None:
    task = job(pictures, tmp_path / "corpus.zarr")
    with pytest.raises(KeyboardInterrupt):
        run_build_corpus(task, Heard(stop_at=stop))
    assert not task.output.exists()
    heard = Heard()
    run_build_corpus(task, heard)
    assert any("going on after" in line for line in heard.lines)
    assert content(task.output) == content(built)


def test_killed_and_resumed_gives_the_same_bytes(built: Path, pictures: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.pipelines.test_corpus import *\n"
        "run_build_corpus(job(Path(sys.argv[1]), Path(sys.argv[2])), Progress())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(pictures), str(tmp_path / "corpus.zarr")])
    journal = tmp_path / ".corpus.zarr.work/journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    heard = Heard()
    run_build_corpus(job(pictures, tmp_path / "corpus.zarr"), heard)
    assert content(tmp_path / "corpus.zarr") == content(built)


def test_nothing_is_done_twice_and_other_settings_do_it_again(pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "corpus.zarr"
    run_build_corpus(job(pictures, output, _with(cap=2)), Progress())
    corpus = open_corpus(output)
    old = {(r["slide"], r["x_base"], r["y_base"]) for r in corpus.table.to_pylist()}
    assert len(corpus) == 16 and report(corpus)["dropped"]["cap"] > 0
    beside(output)["sheet"].unlink()
    heard = Heard()
    run_build_corpus(job(pictures, output, _with(cap=2)), heard)
    assert any("up to date" in line for line in heard.lines) and beside(output)["sheet"].exists()
    run_build_corpus(job(pictures, output, _with(cap=1)), Progress())
    assert len(open_corpus(output)) == 8
    assert {(r["slide"], r["x_base"], r["y_base"]) for r in open_corpus(output).table.to_pylist()} < old


def test_a_slide_and_test_images_of_it(phantom: Phantom, tmp_path: Path) -> None:
    with open_slide(phantom.path) as slide:
        Image.fromarray(slide.read_region(0, 500, 300, 400, 320)).save(tmp_path / "held_out.png")
    settings = CorpusSettings(patch=256, threads=2)
    task = CorpusJob((str(phantom.path),), tmp_path / "c.zarr", exclude=(str(tmp_path),), settings=settings)
    run_build_corpus(task, Progress())
    corpus = open_corpus(task.output)
    boxes = [(r["x_base"], r["y_base"]) for r in corpus.table.to_pylist()]
    touching = [(x, y) for x, y in boxes if x < 900 and x + 256 > 500 and y < 620 and y + 256 > 300]
    assert boxes and not [(x, y) for x, y in touching if _overlap(x, y) > 128 * 128]
    found = corpus.excluded.to_pylist()
    assert found and all(match["image"].endswith("held_out.png") and match["correlation"] > 0.5 for match in found)
    assert all(_overlap(match["x_base"], match["y_base"]) > 0 for match in found)
    assert len(found) == report(corpus)["dropped"]["excluded"]


def test_pictures_shown_twice_are_kept_once(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    with Image.open(pictures / "P0-0.png") as first:
        first.save(folder / "P0-0.png")
        first.transpose(Image.Transpose.ROTATE_90).save(folder / "P1-0.jpg", quality=80)
    run_build_corpus(job(folder, tmp_path / "c.zarr", _with(duplicates=8)), Progress())
    found = report(open_corpus(tmp_path / "c.zarr"))
    assert found["by_slide"]["pictures/P0-0.png"]["kept"] > 0
    assert found["by_slide"]["pictures/P1-0.jpg"].get("kept", 0) == 0
    assert found["by_slide"]["pictures/P1-0.jpg"]["duplicate"] == found["by_slide"]["pictures/P0-0.png"]["kept"]


def test_slides_that_cannot_be_used_are_named_and_the_rest_is_kept(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("P0-0.png", "P1-0.png"):
        (folder / name).write_bytes((pictures / name).read_bytes())
    (folder / "P2-0.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((256, 256), np.uint16)).save(folder / "P2-1.png")
    Image.fromarray(np.full((30, 30, 3), 99, np.uint8)).save(folder / "P3-0.png")
    Image.fromarray(np.full((256, 256, 3), 244, np.uint8)).save(folder / "P3-1.png")
    heard = Heard()
    run_build_corpus(job(folder, tmp_path / "c.zarr"), heard)
    found = report(open_corpus(tmp_path / "c.zarr"))
    failures = found["failures"]
    assert set(failures) == {"pictures/P2-0.png", "pictures/P2-1.png", "pictures/P3-0.png"}
    assert "not colour" in failures["pictures/P2-1.png"] and "smaller than a patch" in failures["pictures/P3-0.png"]
    assert found["slides"] == {"given": 6, "used": 2, "failed": 3}  # glass is no failure
    assert sum("skipped" in line for line in heard.lines) == 3


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(np.full((128, 128, 3), 244, np.uint8)).save(folder / "P0-0.png")
    with pytest.raises(DatasetError, match="no patch is left of 1 slides"):
        run_build_corpus(job(folder, tmp_path / "c.zarr"), Progress())
    assert not (tmp_path / "c.zarr").exists()
    naming = Naming()
    with pytest.raises(DatasetError, match="does not state its resolution"):
        run_build_corpus(CorpusJob((str(folder),), tmp_path / "c.zarr", naming=naming, settings=SETTINGS), Progress())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of a process")
def test_a_full_disk_keeps_whole_shards(built: Path, pictures: Path, tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    task = job(pictures, tmp_path / "corpus.zarr")
    size = max(p.stat().st_size for p in (built / "patches").rglob("0"))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, hard))
        with pytest.raises(OutputError, match=r"cannot write .*corpus\.zarr.*finished parts are kept"):
            run_build_corpus(task, Progress())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not task.output.exists()
    run_build_corpus(task, Progress())
    assert content(task.output) == content(built)


def test_a_forecast_writes_nothing(built: Path, pictures: Path, tmp_path: Path) -> None:
    planned = forecast(job(pictures, tmp_path / "c.zarr"), Progress())
    assert planned.slides == 8 and planned.patients == 4 and not planned.failures
    assert planned.patches + planned.outside == 8 * 16 and planned.raw_bytes == planned.patches * 64 * 64 * 3
    assert planned.patches >= len(open_corpus(built))
    assert forecast(job(pictures, tmp_path / "c.zarr", _with(cap=3)), Progress()).patches == 24
    assert not list(tmp_path.iterdir())


def _with(**changes: int) -> CorpusSettings:
    from dataclasses import replace

    return replace(SETTINGS, **changes)  # type: ignore[arg-type]


def _overlap(x: int, y: int) -> int:
    """Return the pixels that a patch of 256 px at (x, y) shares with the held-out image."""
    return max(0, min(x + 256, 900) - max(x, 500)) * max(0, min(y + 256, 620) - max(y, 300))


def test_a_picture_that_changes_while_it_is_read_stops_the_run_and_is_read_again(
    pictures: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    build = job(folder, tmp_path / "c.zarr")

    class Touch(Heard):
        def advance(self, stage: str, steps: int = 1) -> None:
            super().advance(stage, steps)
            os.utime(folder / "P0-0.png", (0, 1))

    with pytest.raises(SlideChanged, match=r"P0-0\.png changed while it was read"):
        run_build_corpus(build, Touch())
    assert not (tmp_path / "c.zarr").exists()
    heard = Heard()
    run_build_corpus(build, heard)
    assert not any("going on after" in line for line in heard.lines) and len(open_corpus(build.output))
