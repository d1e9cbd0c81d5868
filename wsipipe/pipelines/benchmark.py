"""The story of ``wsipipe benchmark``: a plan in, its cells fitted and scored, each once, and tables out."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsipipe.artifacts import atomic_write, check_writable, write_json
from wsipipe.evaluate.compare.plan import Cell, read_plan
from wsipipe.evaluate.compare.results import DONE, FAILED, TEST, Planned, failures, placed, planned, write_results
from wsipipe.models import checkpoint
from wsipipe.pipelines.evaluate import EvaluateJob, run_evaluate
from wsipipe.pipelines.fit import FitJob, run_fit
from wsipipe.pipelines.predictions import score_predictions
from wsipipe.runs import claims
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores
from wsipipe.segmentation.outcome import Attempt
from wsipipe.settings import EvaluateSettings, RunSettings


@dataclass(frozen=True)
class BenchmarkJob:
    """Which plan, where its sets lie, where the results go, and how many cells at a time.

    Attributes
    ----------
    root : Path
        Where relative paths of sets and backbones start.
    workers : int
        Processes; each computes a cell with its share of the cores.
    """

    plan: Path
    out: Path
    root: Path = Path()
    workers: int = 1


@claims(lambda job: (job.out / "tables.md",))
def run_benchmark(job: BenchmarkJob, progress: Progress) -> tuple[list[Planned], list[tuple[str, str]]]:
    """Compute what of the plan is not done yet, write the tables, and return the cells and the failures.

    Raises
    ------
    WsipipeError
        When the plan cannot be begun; a cell that fails does not end the others, and is tried again next time.
    """
    plan = read_plan(job.plan)
    check_writable(job.out / "tables.md")
    cells = planned(plan, job.root, job.out)
    left = [one for one in cells if not one.done]
    progress.say(f"{len(cells)} cells, {len(cells) - len(left)} done before")
    progress.start("cells", len(cells))
    progress.advance("cells", len(cells) - len(left))
    for name, reason in _computed(left, job):
        progress.advance("cells")
        if reason:
            progress.say(f"{name}: {reason}")
    failed = failures(cells)
    write_results(job.out, plan, cells, failed)
    return planned(plan, job.root, job.out), failed


def _computed(left: Sequence[Planned], job: BenchmarkJob) -> Iterator[tuple[str, str]]:
    """Compute cells, here or in processes; yield name and reason of failure, "" without one, as they end."""
    if job.workers <= 1 or len(left) <= 1:
        yield from ((one.cell.name, compute(one, job.root)) for one in left)
        return
    share = max(1, allowed_cores() // job.workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(job.workers, context, _begin, (share,)) as pool:
        running = {pool.submit(compute, one, job.root): one for one in left}
        for future in as_completed(running):
            with Attempt() as attempt:
                reason = future.result()
            yield running[future].cell.name, attempt.reason if attempt.error else reason


def _begin(cores: int) -> None:
    """Take *cores* of the cores for this process, others than its siblings' where the system tells cores apart."""
    number = int(multiprocessing.current_process().name.rpartition("-")[2] or 1) - 1
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        start = number * cores % len(mine)
        os.sched_setaffinity(0, (mine + mine)[start : start + cores])


def compute(one: Planned, root: Path) -> str:
    """Fit and score a cell in its folder; return why it failed, "" when it did not."""
    one.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with Attempt() as attempt:
        about = _compute(one.cell, one.folder, root)
        seconds = round(time.monotonic() - began, 1)
        write_json(one.folder / DONE, {"cell": one.cell.name, "seconds": seconds, **about})
        return ""
    write_json(one.folder / FAILED, {"cell": one.cell.name, "reason": attempt.reason})
    return attempt.reason


def _compute(cell: Cell, folder: Path, root: Path) -> dict[str, Any]:
    spec = replace(cell.of.spec, path=str(root / cell.of.spec.path))
    if cell.of.folds:
        split = folder / "split.json"
        with atomic_write(split, "w") as file:
            json.dump({"train": cell.train, "test": cell.test}, file)
        spec = replace(spec, split=str(split.resolve()))
    elif spec.split and not Path(spec.split).is_absolute():
        spec = replace(spec, split=str(root / spec.split))
    scoring = EvaluateSettings(resamples=1, pictures=0)
    device = cell.settings.device
    if cell.arm.predictions:
        scored = EvaluateJob(spec, folder / TEST, scoring=scoring)
        score_predictions(scored, root / cell.arm.predictions, Progress())
        return {"trainable": 0, "parameters": 0}
    asked = cell.settings
    inside = str(root / asked.encoder) if asked.encoder and (root / asked.encoder).exists() else asked.encoder
    settings = replace(asked, backbone=placed(root, asked.backbone), encoder=inside)
    model = run_fit(FitJob((spec,), Path(), folder / "fit", settings), Progress())
    run = RunSettings(device=device)
    run_evaluate(EvaluateJob(spec, folder / TEST, model=str(model), run=run, scoring=scoring), Progress())
    return _sizes(model)


def _sizes(model: Path) -> dict[str, Any]:
    network, card = checkpoint.load(model)
    assert isinstance(network, checkpoint.Segmenter)
    head, whole = (sum(p.numel() for p in part.parameters()) for part in (network.head, network))
    return {"head": head, "parameters": whole, "trainable": card.training.get("trainable")}
