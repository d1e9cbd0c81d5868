"""`wsipipe benchmark`: every cell once, failures that end nothing, tables of what there is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests import tiny
from tests.compare.test_plan import make_set
from wsipipe.cli.benchmark import benchmark
from wsipipe.errors import DatasetError
from wsipipe.labels import DatasetSpec
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard
from wsipipe.pipelines import benchmark as story
from wsipipe.pipelines.benchmark import BenchmarkJob, run_benchmark
from wsipipe.pipelines.evaluate import EvaluateJob
from wsipipe.pipelines.predictions import score_predictions
from wsipipe.schedule.progress import Progress
from wsipipe.settings import EvaluateSettings

PLAN = """
title = "Small"
criterion = "Only where the interval excludes 0."
resamples = 50
pairs = [["tiny", "tool"]]
[fit]
unfreeze = false
device = "cpu"
batch = 1
head = "linear"
[loop]
steps = 1
[[sets]]
name = "discs"
path = "set"
mpp = 0.5
patient = '(p.)'
folds = 2
[[arms]]
name = "tiny"
backbone = "tiny.safetensors"
[[arms]]
name = "tool"
predictions = "tool"
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def job(tmp_path: Path) -> BenchmarkJob:
    root = make_set(tmp_path, patients=2, images=1)
    checkpoint.save(root / "tiny.safetensors", tiny.shake(tiny.backbone()), ModelCard("b", tiny.backbone().config))
    shutil.copytree(root / "set" / "labels", root / "tool")
    (root / "plan.toml").write_text(PLAN)
    return BenchmarkJob(root / "plan.toml", tmp_path / "out", root)


def test_every_cell_is_computed_once_and_failures_end_nothing(
    job: BenchmarkJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (job.root / "tool" / "p1-0.png").read_bytes()
    (job.root / "tool" / "p1-0.png").unlink()
    cells, failed = run_benchmark(job, Progress())
    assert [one.done for one in cells] == [True, True, True, False]
    assert failed[0][0] == "tool, discs, fold 1, seed 0" and "no instance map of p1-0" in failed[0][1]
    rows = pd.read_parquet(job.out / "scores.parquet")
    assert sorted(zip(rows.arm, rows.image, rows.fold)) == [
        ("tiny", "p0-0", 0),
        ("tiny", "p1-0", 1),
        ("tool", "p0-0", 0),
    ]
    assert (rows[rows.arm == "tool"].PQ == 1).all(), "the tool's maps are the labels"
    text = (job.out / "tables.md").read_text()
    assert "Only where the interval excludes 0." in text and "tool, discs, fold 1" in text
    kinds = ("", "-by-seconds", "-by-trainable")
    drawn = {f"discs-{score}{kind}.png" for score in ("mDice", "PQ") for kind in kinds}
    assert {p.name for p in (job.out / "plots").iterdir()} == drawn

    began: list[str] = []
    compute = story.compute
    monkeypatch.setattr(story, "compute", lambda one, root: began.append(one.cell.name) or compute(one, root))
    (job.root / "tool" / "p1-0.png").write_bytes(kept)
    cells, failed = run_benchmark(job, Progress())
    assert began == ["tool, discs, fold 1, seed 0"] and not failed and all(one.done for one in cells)
    assert pd.read_csv(job.out / "differences.csv").verdict.tolist() == ["fewer than 5 patients: nothing said"] * 2
    assert len(pd.read_csv(job.out / "cells.csv")) == 4

    done = CliRunner().invoke(
        benchmark, [str(job.plan), "-o", str(job.out), "--root", str(job.root), "--dry-run"], standalone_mode=False
    )
    assert "4 cells, 4 done, 0 left" in done.output and "criterion: Only where" in done.output


def test_predictions_are_scored_as_evaluate_scores(job: BenchmarkJob, tmp_path: Path) -> None:
    spec = DatasetSpec(str(job.root / "set"), 0.5)
    asked = EvaluateJob(spec, tmp_path / "scored", scoring=EvaluateSettings(resamples=20))
    found = score_predictions(asked, job.root / "tool", Progress())
    assert found.summary.pooled["PQ"].value == 1 and "made by another tool" in found.markdown
    assert (tmp_path / "scored" / "scores.md").is_file() and len(pd.read_csv(tmp_path / "scored" / "images.csv")) == 2
    np.save(job.root / "tool" / "p0-0.npy", np.zeros((5, 5), np.int32))
    (job.root / "tool" / "p0-0.png").unlink()
    with pytest.raises(DatasetError, match=r"p0-0\.npy: \(5, 5\); its image is \(96, 96\), and sizes must agree"):
        score_predictions(asked, job.root / "tool", Progress())
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(job.root / "tool" / "p0-0.png")
    assert score_predictions(asked, job.root / "tool", Progress()).summary.pooled["PQ"].value < 1


def test_cells_in_processes_are_those_of_one_process(job: BenchmarkJob, tmp_path: Path) -> None:
    run_benchmark(job, Progress())
    both = BenchmarkJob(job.plan, tmp_path / "both", job.root, workers=2)
    cells, failed = run_benchmark(both, Progress())
    assert not failed and all(one.done for one in cells)
    ours, theirs = (pd.read_parquet(out / "scores.parquet") for out in (both.out, job.out))
    order = ["arm", "fold", "image"]
    pd.testing.assert_frame_equal(
        ours.sort_values(order).reset_index(drop=True), theirs.sort_values(order).reset_index(drop=True)
    )
    table = pd.read_csv(job.out / "cells.csv")
    assert table[table.arm == "tiny"].trainable.tolist() == [2 * sum(tiny.FEATURES) + 2] * 2
