"""Killed at any moment, the same command finishes the work: the same bytes, and nothing done twice that was done."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.prepare import prepare
from wsipipe.segmentation.run import open_work, run_segment
from wsipipe.settings import RunSettings

QUIET = Progress()
FP32 = ["--precision", "fp32"]


def job_of(slide: Path, model: Path, folder: Path) -> SegmentJob:
    outputs = folder / "cells.parquet", folder / "cells.geojson.gz"
    run = RunSettings(device="cpu", precision="fp32", block=256, batch=2)
    return SegmentJob(str(slide), outputs, str(model), run=run)


@pytest.fixture(scope="module")
def whole(small_slide: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Return the outputs of a run that nobody disturbed."""
    job = job_of(small_slide, tiny_model, tmp_path_factory.mktemp("whole"))
    assert run_segment(job, QUIET).cells > 100
    return [path.read_bytes() for path in job.outputs]


class Watched:
    """The command in a process of its own, and what can be seen of it from outside."""

    def __init__(self, job: SegmentJob, *options: str) -> None:
        self.job = job
        command = [sys.executable, "-m", "wsipipe", "segment", job.source, "--model", job.model, "--device", "cpu"]
        command += [f"-o{path}" for path in job.outputs] + ["--block", "256", "--batch", "2", *FP32, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def files(self) -> set[str]:
        """Return the names of the finished maps and parts."""
        return {p.name for p in self.job.work.glob("*/*/*") if not p.name.startswith(".")}

    def writes(self) -> bool:
        """Whether an output, or the run record, is being written."""
        return any(self.job.outputs[0].parent.glob(".cells.*.tmp")) or self.job.record.exists()

    def kill_when(self, moment: str, rng: random.Random) -> None:
        """Kill it with SIGKILL: before its first block, after some files, or while it writes."""
        wanted = {"early": 0, "blocks": rng.randint(1, 12), "writing": 10**6}[moment]
        seen: set[str] = set()
        while self.process.poll() is None:
            seen |= self.files()
            if (moment == "early" and self.job.work.exists()) or len(seen) >= max(1, wanted) or self.writes():
                break
            time.sleep(0.002)
        time.sleep(rng.random() * (0.3 if moment == "early" else 0.05))
        self.process.kill()
        self.process.wait()


def check_resumed(job: SegmentJob, whole: list[bytes]) -> None:
    """Finish the job, and compare the outputs and what was left to do."""
    done = {p.name for p in job.work.glob("*/parts/*.arrow")}
    finished_already = job.record.exists()
    run_segment(job, QUIET)
    assert [path.read_bytes() for path in job.outputs] == whole
    if not finished_already:
        kept = json.loads(job.record.read_text())["kept"]
        assert kept["finished"] == len(done), "no block whose cells were there is done again"
    left = {path.name for path in job.outputs[0].parent.iterdir()}
    assert left == {"cells.parquet", "cells.geojson.gz", "cells.run.json"}, "nothing hidden is left"


def test_three_kills(small_slide: Path, tiny_model: Path, tmp_path: Path, whole: list[bytes]) -> None:
    job, rng = job_of(small_slide, tiny_model, tmp_path), random.Random(7)
    for moment in ("early", "blocks", "writing"):
        Watched(job).kill_when(moment, rng)
    check_resumed(job, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_thirty_kills(seed: int, small_slide: Path, tiny_model: Path, tmp_path: Path, whole: list[bytes]) -> None:
    job, rng = job_of(small_slide, tiny_model, tmp_path), random.Random(seed)
    Watched(job).kill_when(rng.choice(["early", "blocks", "blocks", "writing"]), rng)
    check_resumed(job, whole)


def test_ctrl_c_of_two_workers_and_the_same_bytes_in_the_end(
    small_slide: Path, tiny_model: Path, tmp_path: Path, whole: list[bytes]
) -> None:
    job = job_of(small_slide, tiny_model, tmp_path)
    watched = Watched(job, "--workers", "2")
    while watched.process.poll() is None and len(watched.files()) < 3:
        time.sleep(0.01)
    watched.process.send_signal(signal.SIGINT)
    assert watched.process.wait(120) == 130
    assert not job.outputs[0].exists() and watched.files(), "stopped on the way, with work done"
    check_resumed(job, whole)


def test_interrupted_while_writing_outputs_and_while_cleaning_up(
    small_slide: Path, tiny_model: Path, tmp_path: Path, whole: list[bytes]
) -> None:
    """A child is stopped by SIGKILL exactly when a file is to be renamed, at each rename in turn."""
    code = (
        "import os, sys; from wsipipe.cli.main import main; count = 0; rename = os.replace\n"
        "def replace(a, b):\n"
        "    global count\n"
        "    if os.path.basename(b).startswith('cells.'):\n"
        "        count += 1\n"
        "        if count == int(sys.argv[1]): os.kill(os.getpid(), 9)\n"
        "    rename(a, b)\n"
        "os.replace = replace; sys.exit(main(sys.argv[2:]))"
    )
    job = job_of(small_slide, tiny_model, tmp_path)
    options = ["segment", job.source, "--model", job.model, "--device", "cpu", "--block", "256", "--batch", "2"]
    options += FP32
    options += [f"-o{path}" for path in job.outputs]
    for rename in ("2", "3"):
        process = subprocess.run([sys.executable, "-c", code, rename, *options], capture_output=True, check=False)
        assert process.returncode == -signal.SIGKILL, process.stderr
        assert list(tmp_path.glob(".cells.*.tmp")), "the kill came while a file was unfinished"
    check_resumed(job, whole)


def test_a_half_removed_run_under_other_settings_is_not_taken_for_ours(
    small_slide: Path, tiny_model: Path, tmp_path: Path, whole: list[bytes]
) -> None:
    job = job_of(small_slide, tiny_model, tmp_path)
    prepared = prepare(job, QUIET)
    scratch = open_work(job.work, prepared)
    other = job.work / "0123456789abcdef"
    (other / "parts").mkdir(parents=True)
    (other / "parts" / "00000000.arrow").write_bytes(b"cells of another plan")
    (job.work / "plan.json").write_text("{}")
    (scratch.maps_folder / ".00000000.zip.0123abcd.tmp").write_bytes(b"half")
    again = open_work(job.work, prepared)
    assert again.folder == scratch.folder and not other.exists() and os.listdir(job.work) == [scratch.folder.name]
    assert again.finished() == again.predicted() == set() and os.listdir(scratch.maps_folder) == []
    run_segment(job, QUIET)
    assert [path.read_bytes() for path in job.outputs] == whole


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "gone"])
def test_scratch_that_cannot_be_read_is_made_again(
    small_slide: Path, tiny_model: Path, tmp_path: Path, whole: list[bytes], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(small_slide, tiny_model, tmp_path)
    with monkeypatch.context() as patched:  # everything is done but the writing
        patched.setattr("wsipipe.schedule.scratch.Scratch.drop", lambda self, blocks: None)
        patched.setattr("wsipipe.segmentation.run.publish", lambda *args: None)
        run_segment(job, QUIET)
    files = [path for path in job.work.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".zip", ".arrow", ".json", ".npy", ".wkb"}
    for path in files:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 16
        path.write_bytes({"cut": raw[: len(raw) // 2], "flipped": raw, "empty": b"", "gone": b""}[how])
        if how == "gone":
            path.unlink()
    run_segment(job, QUIET)
    assert [path.read_bytes() for path in job.outputs] == whole
