"""What holds in one arithmetic holds in the other: each is asked for, neither is left to the processor."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Phantom
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.labels import DatasetSpec
from wsipipe.pipelines.evaluate import EvaluateJob, run_evaluate
from wsipipe.pipelines.features import FeaturesJob, run_features
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.run import run_segment
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


@pytest.mark.parametrize("precision", DTYPES)
def test_two_workers_give_the_bytes_of_one(precision: str, jobs: dict[str, SegmentJob], tmp_path: Path) -> None:
    whole = jobs[precision]
    run = dataclasses.replace(whole.run, block=512, workers=2)
    job = dataclasses.replace(whole, outputs=(tmp_path / "cells.parquet",), run=run)
    run_segment(job, QUIET)
    assert job.outputs[0].read_bytes() == whole.outputs[0].read_bytes()


@pytest.mark.parametrize("precision", DTYPES)
def test_features_resume_to_the_same_bytes(precision: str, small_slide: Path, tiny_model: Path, tmp_path: Path) -> None:
    run = RunSettings(device="cpu", precision=precision, batch=2)
    jobs = [FeaturesJob(str(small_slide), tmp_path / name, str(tiny_model), run=run) for name in ("a.h5", "b.h5")]
    assert run_features(jobs[0], QUIET).tiles > 3
    with pytest.raises(KeyboardInterrupt):
        run_features(jobs[1], Stop())
    run_features(jobs[1], QUIET)
    found = []
    for job in jobs:
        with h5py.File(job.output) as file:
            found.append(np.asarray(file["features"]))
    assert np.array_equal(*found) and np.isfinite(found[0]).all()


@pytest.mark.parametrize("precision", DTYPES)
def test_scores_are_the_same_whatever_shares_a_batch(
    precision: str, phantom: Phantom, tiny_model: Path, tmp_path: Path
) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for k in range(3):
        box = 200 + 300 * k, 300, 456 + 300 * k, 556
        Image.fromarray(phantom.truth.picture(box)).save(tmp_path / f"set/images/{k}.png")
        Image.fromarray(phantom.truth.instance_map(box).astype(np.uint16)).save(tmp_path / f"set/labels/{k}.png")
    spec, scores = DatasetSpec(str(tmp_path / "set"), mpp=0.5), []
    for batch in (1, 4):
        run = RunSettings(device="cpu", precision=precision, batch=batch)
        found = run_evaluate(EvaluateJob(spec, tmp_path / f"out{batch}", model=str(tiny_model), run=run), QUIET)
        assert found.about["recipe"]["dtype"] == DTYPES[precision]  # type: ignore[index]
        scores.append([counts.found for _, counts in found.images])
    assert sum(scores[0]) > 0 and scores[0] == pytest.approx(scores[1], rel=APART)
