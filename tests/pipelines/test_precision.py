"""What holds in one arithmetic holds in the other: each is asked for, neither is left to the processor."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.pipelines.job import SegmentJob
from wsipipe.pipelines.segment import run_segment
from wsipipe.schedule.progress import Progress
from wsipipe.settings import RunSettings

QUIET = Progress()
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
APART = 0.05
"""Share of cells by which the two may differ; random weights make many a close call (the shipped model: below 1 %)."""


class Stop(Progress):
    """Interrupts after three batches or blocks."""

    heard = 0

    def advance(self, stage: str, steps: int = 1) -> None:
        self.heard += 1
        if self.heard == 3:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def jobs(small_slide: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SegmentJob]:
    """Return a finished run in each arithmetic, the slide in one block."""
    found = {}
    for precision in DTYPES:
        run = RunSettings(device="cpu", precision=precision, block=3072, batch=2)
        out = tmp_path_factory.mktemp(precision) / "cells.parquet"
        found[precision] = SegmentJob(str(small_slide), (out,), str(tiny_model), run=run)
        assert run_segment(found[precision], QUIET).cells > 100
    return found


@pytest.mark.parametrize("precision", DTYPES)
def test_blocks_and_an_interruption_change_no_byte(precision: str, jobs: dict[str, SegmentJob], tmp_path: Path) -> None:
    whole = jobs[precision]
    job = dataclasses.replace(
        whole, outputs=(tmp_path / "cells.parquet",), run=dataclasses.replace(whole.run, block=256)
    )
    with pytest.raises(KeyboardInterrupt):
        run_segment(job, Stop())
    assert job.work.is_dir() and not job.outputs[0].exists()
    run_segment(job, QUIET)
    assert job.outputs[0].read_bytes() == whole.outputs[0].read_bytes()


def test_the_arithmetic_is_told_and_belongs_to_the_fingerprint(jobs: dict[str, SegmentJob]) -> None:
    about = {precision: metadata(job.outputs[0]) for precision, job in jobs.items()}
    assert {precision: found["recipe"]["dtype"] for precision, found in about.items()} == DTYPES
    assert len({found["run_fingerprint"] for found in about.values()}) == 2


def test_one_finds_nearly_the_cells_of_the_other(jobs: dict[str, SegmentJob]) -> None:
    fp32, bf16 = (len(read_cells(job.outputs[0])) for job in jobs.values())
    assert bf16 == pytest.approx(fp32, rel=APART)
