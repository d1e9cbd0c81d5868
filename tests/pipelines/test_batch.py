"""Many slides: each has its own result, none stops the others, and nothing is done twice."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import needs_pipes
from wsipipe.errors import ModelNotFound, OutputBusy, OutputError, SettingsError, SlideNotFound
from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.runs.lease import acquire
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.batch import BatchJob, run_batch
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.outcome import Attempt, Report
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import BatchSettings, RunSettings, TissueSettings

QUIET = Progress()


class Heard(Progress):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: dict[str, int] = {}

    def advance(self, stage: str, steps: int = 1) -> None:
        self.steps[stage] = self.steps.get(stage, 0) + steps

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two slides of the same name, one of glass, and one that is none; each is a single tile."""
    folder = tmp_path_factory.mktemp("slides")
    for name, seed, tissue in (("a/x", 1, 0.9), ("b/x", 2, 0.9), ("empty", 3, 0.0)):
        (folder / name).parent.mkdir(exist_ok=True)
        settings = PhantomSettings(width=250, height=200, seed=seed, mpp=0.5, tissue=tissue)
        write_phantom(folder / f"{name}.tiff", settings)
    (folder / "b/bad.svs").write_text("this is not a slide")
    return folder


@pytest.fixture
def slides(drawn: Path, tmp_path: Path) -> Path:
    """Return a copy of the slides that a test may change."""
    return Path(shutil.copytree(drawn, tmp_path / "slides"))


def batch_of(model: Path, out: Path, *sources: object, **settings: object) -> BatchJob:
    run, tissue = RunSettings(device="cpu", precision="fp32", block=256, batch=1), TissueSettings(tissue="none")
    like = SegmentJob("", (), str(model), run=run, tissue=tissue)
    settings = {"format": "parquet", **settings}
    return BatchJob(tuple(map(str, sources)), out, like, BatchSettings(**settings))  # type: ignore[arg-type]


def statuses(report: Report) -> dict[str, str]:
    return {outcome.name: outcome.status for outcome in report.outcomes}


def reason(report: Report, name: str) -> str:
    return next(outcome.reason for outcome in report.outcomes if outcome.name == name)


FIRST = {"a/x": "done", "b/x": "done", "b/bad": "failed", "empty": "done"}


def test_one_bad_slide_stops_no_other_and_what_is_done_stays_done(
    slides: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out, heard = tmp_path / "out", Heard()
    batch = batch_of(tiny_model, out, slides, format="parquet,geojson.gz,png")
    report = run_batch(batch, heard)
    assert statuses(report) == FIRST and report.failed
    assert heard.steps["slides"] == 4 and sum(line.startswith("[") for line in heard.lines) == 4
    assert "bad.svs" in reason(report, "b/bad")
    both = [(out / f"{name}.parquet").read_bytes() for name in ("a/x", "b/x")]
    assert both[0] != both[1] and all((out / f"a/x{e}").stat().st_size for e in (".geojson.gz", ".png", ".run.json"))
    kept = json.loads((out / "report.json").read_text())
    assert kept["counts"] == {"done": 3, "failed": 1, "skipped": 0} and kept["format"] == 1
    assert {s["name"]: s["status"] for s in kept["slides"]} == FIRST
    assert not list(out.rglob(".*")), "no working state is left"
    # a single run of one of them gives the same bytes
    alone = dataclasses.replace(batch.like, source=str(slides / "a/x.tiff"), outputs=(tmp_path / "one.parquet",))
    run_segment(dataclasses.replace(alone, run=dataclasses.replace(batch.like.run, block=400)), QUIET)
    assert (tmp_path / "one.parquet").read_bytes() == both[0]
    # again: nothing is done, the failure is known
    (out / "b/x.parquet").unlink()
    tried = json.loads((out / "b/bad.failed.json").read_text())
    again = run_batch(batch, QUIET)
    assert statuses(again) == {"a/x": "skipped", "b/x": "done", "b/bad": "failed", "empty": "skipped"}
    assert reason(again, "a/x") == "up to date" and "--retry-failed" in reason(again, "b/bad")
    assert json.loads((out / "b/bad.failed.json").read_text()) == tried
    assert (out / "b/x.parquet").read_bytes() == both[1]
    # it is tried again when asked for, and when it is another slide
    retried = run_batch(
        dataclasses.replace(batch, settings=dataclasses.replace(batch.settings, retry_failed=True)), QUIET
    )
    assert "--retry-failed" not in reason(retried, "b/bad")
    shutil.copy(slides / "a/x.tiff", slides / "b/bad.svs")
    mended = run_batch(batch, QUIET)
    assert statuses(mended)["b/bad"] == "done" and not mended.failed and not (out / "b/bad.failed.json").exists()


def test_changed_settings_redo_the_slides_that_they_change(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    table = slides / "cohort.csv"
    table.write_text("path,min-area-um2\na/x.tiff,\nb/x.tiff,\n")
    batch = batch_of(tiny_model, tmp_path / "out", table)
    assert statuses(run_batch(batch, QUIET)) == {"a/x": "done", "b/x": "done"}
    table.write_text("path,min-area-um2\na/x.tiff,\nb/x.tiff,40\n")
    assert statuses(run_batch(batch, QUIET)) == {"a/x": "skipped", "b/x": "done"}
    tissue = tmp_path / "tissue.geojson"
    square = {"type": "Polygon", "coordinates": [[[0, 0], [200, 0], [200, 200], [0, 200], [0, 0]]]}
    tissue.write_text(json.dumps(square))
    like = dataclasses.replace(batch.like, tissue=TissueSettings(tissue=str(tissue)))
    batch = dataclasses.replace(batch, like=like)
    run_batch(batch, QUIET)
    assert set(statuses(run_batch(batch, QUIET)).values()) == {"skipped"}
    square["coordinates"][0][1] = [150, 0]  # type: ignore[index]
    tissue.write_text(json.dumps(square))
    assert set(statuses(run_batch(batch, QUIET)).values()) == {"done"}, "the tissue file's content counts"


def test_a_slide_that_another_process_works_on_is_left_to_it(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    with acquire(out / "a/x.parquet"):
        report = run_batch(batch_of(tiny_model, out, slides / "a/x.tiff", slides / "empty.tiff"), QUIET)
    assert statuses(report) == {"a/x": "skipped", "empty": "done"} and "works on it" in reason(report, "a/x")
    assert not report.failed and not (out / "a/x.parquet").exists()
    with acquire(out / "a/x.parquet"), pytest.raises(OutputBusy):
        run_segment(SegmentJob(str(slides / "a/x.tiff"), (out / "a/x.parquet",), str(tiny_model)), QUIET)


def test_it_waits_for_others_when_asked_to(
    slides: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsipipe.segmentation.batch.WAIT_SECONDS", 0.01)
    out = tmp_path / "out"
    out.mkdir()
    lease = acquire(out / "empty.parquet")

    class Release(Heard):
        def say(self, line: str) -> None:
            super().say(line)
            if "works on it" in line:
                lease.release()

    batch = batch_of(tiny_model, out, slides / "empty.tiff", wait=True)
    heard = Release()
    assert statuses(run_batch(batch, heard)) == {"empty": "done"}
    assert sum("works on it" in line for line in heard.lines) == 1 and "works on it" in heard.lines[0], "said once"


def test_two_processes_share_a_folder(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "wsipipe", "segment", str(slides / "a"), str(slides / "b/x.tiff")]
    command += ["-o", f"{out}/", "--model", str(tiny_model), "--format", "parquet", "--wait", "--device", "cpu"]
    command += ["--precision", "fp32"]
    command += ["--tissue", "none", "--batch", "1"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    done = [line.split()[0] for text, _ in said for line in text.splitlines() if line.split()[1:2] == ["done"]]
    assert sorted(done) == ["a/x", "b/x"], "each slide is done by one of them"
    assert not list(out.rglob(".*"))


def test_the_same_name_for_another_slide_is_refused(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not run_batch(batch_of(tiny_model, out, slides / "a/x.tiff"), QUIET).failed
    before = (out / "x.parquet").read_bytes()
    other = run_batch(batch_of(tiny_model, out, slides / "b/x.tiff"), QUIET)
    assert other.failed and "give --root" in reason(other, "x") and (out / "x.parquet").read_bytes() == before
    named = run_batch(batch_of(tiny_model, out, slides / "b/x.tiff", root=str(slides)), QUIET)
    assert statuses(named) == {"b/x": "done"}


def test_slides_are_staged_and_the_copies_removed(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    plain = run_batch(batch_of(tiny_model, tmp_path / "plain", slides), QUIET)
    stage, heard = tmp_path / "fast", Heard()
    left = stage / "wsipipe-1-left"
    left.mkdir(parents=True)
    holder = {"host": "h", "pid": 2**22 + 1, "started": "1", "since": "", "machine": _machine()}
    (left / "holder.json").write_text(json.dumps(holder))
    largest = max(p.stat().st_size for p in slides.rglob("*.tiff"))
    room = 1.5 * largest / 1e9  # one copy at a time
    batch = batch_of(tiny_model, tmp_path / "staged", slides, stage=str(stage), stage_gb=room)
    staged = run_batch(batch, heard)
    assert statuses(staged) == statuses(plain) == FIRST
    assert list(stage.iterdir()) == []
    for name in ("a/x.parquet", "b/x.parquet", "empty.parquet"):
        assert (tmp_path / "staged" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert json.loads((tmp_path / "staged/a/x.run.json").read_text())["slide"] == str(slides / "a/x.tiff")
    assert "bad.svs" in reason(staged, "b/bad")
    tight = batch_of(tiny_model, tmp_path / "tight", slides / "a", stage=str(stage), stage_gb=0.5 * largest / 1e9)
    assert statuses(run_batch(tight, heard)) == {"x": "done"}
    assert any("read where it is (larger than --stage-gb)" in line for line in heard.lines)


def _machine() -> str:
    from wsipipe.runs.lease import machine

    return machine()


def test_what_stops_the_whole_batch(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(SettingsError, match="--format xlsx: expected"):
        run_batch(batch_of(tiny_model, out, slides, format="xlsx"), QUIET)
    with pytest.raises(SettingsError, match="--format png: expected"):
        run_batch(batch_of(tiny_model, out, slides, format="png"), QUIET)
    with pytest.raises(SlideNotFound):
        run_batch(batch_of(tiny_model, out, f"{slides}/*.none"), QUIET)
    with pytest.raises(ModelNotFound):
        run_batch(batch_of(tmp_path / "none.safetensors", out, slides), QUIET)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder"):
        run_batch(batch_of(tiny_model, tmp_path / "file" / "out", slides), QUIET)


def test_a_missing_slide_and_a_missing_model_fail_alone(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    table = slides / "cohort.csv"
    table.write_text("path,model\nempty.tiff,\ngone.svs,\na/x.tiff,none.safetensors\n")
    report = run_batch(batch_of(tiny_model, tmp_path / "out", table), QUIET)
    assert statuses(report) == {"empty": "done", "gone": "failed", "a/x": "failed"}
    assert "no such slide" in reason(report, "gone") and "none.safetensors" in reason(report, "a/x")


@needs_pipes
def test_names_that_are_not_utf8_pipes_and_long_names(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    long = [f"{'long' * 40}{k}" for k in "12"]
    for name in (odd, *long):
        shutil.copy(slides / "empty.tiff", slides / f"{name}.tiff")
    os.mkfifo(slides / "pipe.svs")
    shutil.rmtree(slides / "b")
    out = tmp_path / "out"
    batch = batch_of(tiny_model, out, slides, format="parquet,geojson")
    report = run_batch(batch, QUIET)
    expected = {"a/x": "done", "empty": "done", "pipe": "failed", "caf\\xe9": "done", **dict.fromkeys(long, "done")}
    assert statuses(report) == expected and "it is a pipe" in reason(report, "pipe")
    told = {Path(row["slide"]).stem for row in json.loads((out / "report.json").read_text("utf-8"))["slides"]}
    assert odd in told, "the name survives JSON"
    again = statuses(run_batch(batch, QUIET))
    assert again == {name: "failed" if name == "pipe" else "skipped" for name in expected}
    with acquire(out / f"{long[0]}.parquet"):
        redone = run_batch(dataclasses.replace(batch, like=dataclasses.replace(batch.like, force=True)), QUIET)
    assert {name for name, status in statuses(redone).items() if status == "skipped"} == {long[0]}


def test_errors_that_nobody_foresaw_are_called_so() -> None:
    with Attempt() as attempt:
        raise ZeroDivisionError("a bug")
    assert attempt.reason == "unexpected ZeroDivisionError: a bug"
    with Attempt() as fine:
        pass
    assert fine.error is None
    with pytest.raises(KeyboardInterrupt), Attempt():
        raise KeyboardInterrupt
