"""Several processes: any number of workers, killed or not, here or elsewhere, give the same bytes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsipipe.errors import ClusterError, SettingsError
from wsipipe.models.device import SmallerBatch
from wsipipe.schedule.dask import DaskEngine
from wsipipe.schedule.local import device_list
from wsipipe.schedule.order import Lanes, Pace
from wsipipe.schedule.process import worker_of
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.task import CELLS, PREDICT, Plan, Receipt, Task
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.prepare import prepare
from wsipipe.segmentation.publish import publish
from wsipipe.segmentation.request import network_of
from wsipipe.segmentation.run import compute, run_segment
from wsipipe.settings import ClusterSettings, RunSettings

QUIET = Progress()


def job_of(slide: Path, model: Path, out: Path) -> SegmentJob:
    run = RunSettings(device="cpu", precision="fp32", block=256, batch=2)
    return SegmentJob(str(slide), (out,), str(model), run=run)


@pytest.fixture(scope="module")
def whole(small_slide: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the cells, found in one process."""
    out = tmp_path_factory.mktemp("whole") / "cells.parquet"
    assert run_segment(job_of(small_slide, tiny_model, out), QUIET).cells > 100
    return out.read_bytes()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a running scheduler with four workers, all processes of their own."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    start = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    work = [*dask, "worker", "--nworkers", "4", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
    processes = [
        subprocess.Popen([*command, "--scheduler-file", str(file)], env=environment, stderr=subprocess.DEVNULL)
        for command in (start, work)
    ]
    from distributed import Client

    with Client(scheduler_file=str(file), timeout="300s", set_as_default=False) as client:
        client.wait_for_workers(4, timeout=600)
        yield client.scheduler.address
    for process in processes[::-1]:
        process.terminate()
    for process in processes:
        process.wait(60)


@pytest.fixture
def engine(scheduler: str) -> Iterator[DaskEngine]:
    said: list[str] = []
    with DaskEngine(RunSettings(), ClusterSettings(scheduler=scheduler), said.append) as engine:
        assert said[0].startswith("dashboard http://")
        yield engine


def run_on(engine: DaskEngine, job: SegmentJob, progress: Progress = QUIET) -> bytes:
    """Segment on the engine's workers and return the cells."""
    prepared, done = compute(job, network_of(job, engine), engine, progress)
    publish(job, prepared, done, QUIET)
    return job.outputs[0].read_bytes()


class KillOne(Progress):
    """Kills the processes of some workers in the middle of the slide."""

    def __init__(self, pids: list[int]) -> None:
        self.pids, self.heard = pids, 0

    def advance(self, stage: str, steps: int = 1) -> None:
        self.heard += 1
        if self.heard == 2:
            for pid in self.pids:
                os.kill(pid, signal.SIGKILL)


def test_four_two_and_one_worker_and_a_killed_one_give_the_same_bytes(
    engine: DaskEngine, small_slide: Path, tiny_model: Path, tmp_path: Path, whole: bytes
) -> None:
    job = job_of(small_slide, tiny_model, tmp_path / "four.parquet")
    assert engine.lanes == (4, 4)
    assert run_on(engine, job) == whole
    pids = engine.client.run(os.getpid)
    killer = KillOne(list(pids.values())[:2])
    killed = dataclasses.replace(job, outputs=(tmp_path / "killed.parquet",))
    engine._pace = Pace()
    for kind in (PREDICT, CELLS):  # as if blocks were quick: the workers die amid orders of several blocks
        engine._pace.heard([Receipt(Task(kind, 0), 1)])
    assert run_on(engine, killed, killer) == whole and killer.heard > 2
    left = set(engine.client.run(os.getpid).values())
    assert not left & set(killer.pids), "the killed workers were replaced, the others stayed"
    for count in (2, 1):
        engine.client.wait_for_workers(count, timeout=300)
        workers = list(engine.client.nthreads())
        engine.client.retire_workers(workers[count:], close_workers=True)
        engine._counted = -1e9
        assert engine.lanes == (count, count)
        fewer = dataclasses.replace(job, outputs=(tmp_path / f"{count}.parquet",))
        assert run_on(engine, fewer) == whole


class Steps(Progress):
    """Keeps the steps of the tiles, and how many there were to be."""

    def __init__(self) -> None:
        self.total, self.steps = 0, list[int]()

    def start(self, stage: str, total: int) -> None:
        self.total = total if stage == "tiles" else self.total

    def advance(self, stage: str, steps: int = 1) -> None:
        if stage == "tiles":
            self.steps.append(steps)


def test_workers_tell_of_every_batch_of_tiles(
    small_slide: Path, tiny_model: Path, tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr("wsipipe.schedule.process.TELL_SECONDS", -1.0)
    job = job_of(small_slide, tiny_model, tmp_path / "cells.parquet")
    job, heard = dataclasses.replace(job, run=dataclasses.replace(job.run, block=1024)), Steps()
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        DaskEngine(RunSettings(), ClusterSettings(scheduler=cluster.scheduler_address), lambda line: None) as engine,
    ):
        assert run_on(engine, job, heard) == whole
    assert len(heard.steps) > 3 and sum(heard.steps) == heard.total, "though it is a single block"


def test_devices_have_forwarding_processes_of_their_own(
    small_slide: Path, tiny_model: Path, tmp_path: Path, whole: bytes
) -> None:
    job = job_of(small_slide, tiny_model, tmp_path / "cells.parquet")
    with DaskEngine(RunSettings(), ClusterSettings(devices="cpu,cpu"), lambda line: None) as engine:
        cells = engine.lanes[1]
        assert engine.lanes == (2, cells) and cells >= 1
        assert run_on(engine, job) == whole
        loaded = engine.client.run(_networks)
        resources = engine.client.scheduler_info(n_workers=-1)["workers"]
        by_kind = {
            kind: [loaded[a] for a, w in resources.items() if kind in w["resources"]] for kind in (PREDICT, CELLS)
        }
    assert by_kind[CELLS] == [0] * cells, "those that make cells load no network"
    assert set(by_kind[PREDICT]) == {1} and len(by_kind[PREDICT]) == 2, "each network is loaded once"


def test_a_process_sees_the_gpu_alone_that_it_is_for() -> None:
    """Parts of a GPU are devices too; nothing that a library does on "the" GPU may happen on another one."""
    with DaskEngine(RunSettings(), ClusterSettings(devices="MIG-a,MIG-b"), lambda line: None) as engine:
        seen = engine.client.run(_environment)
        resources = engine.client.scheduler_info(n_workers=-1)["workers"]
        forwarding = sorted(seen[a] for a, w in resources.items() if PREDICT in w["resources"])
    assert forwarding == [("MIG-a", "cuda"), ("MIG-b", "cuda")]


def _environment() -> tuple[str | None, str | None]:
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("WSIPIPE_DEVICE")


def _networks() -> int:
    """Return how often this worker process has loaded a network."""
    from wsipipe.schedule.network import loaded

    return loaded.cache_info().misses


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsipipe.schedule.dask.CONNECT_SECONDS", 0.5)
    settings = ClusterSettings(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ClusterError, match=r"cannot reach a Dask scheduler at tcp://127\.0\.0\.1:9"):
        DaskEngine(RunSettings(), settings, lambda line: None).__enter__()


def test_workers_that_see_other_files_or_compute_differently_are_refused(
    small_slide: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match="does not see"):
        worker_of(str(tmp_path / "nowhere"))
    plan = prepare(job_of(small_slide, tiny_model, tmp_path / "c.parquet"), QUIET).plan
    dataclasses.replace(plan, recipe=plan.recipe | {"dtype": "bfloat16"}).save(tmp_path)
    with pytest.raises(ClusterError, match=r"would compute differently \(dtype float32 instead of bfloat16\)"):
        _ = worker_of(str(tmp_path)).predictor
    (tmp_path / "fits").mkdir()
    dataclasses.replace(plan, recipe=plan.recipe | {"batch": 8}).save(tmp_path / "fits")
    with pytest.raises(SmallerBatch) as less:  # on a device with less memory left
        _ = worker_of(str(tmp_path / "fits")).predictor
    assert less.value.batch == plan.recipe["batch"] == 2
    other = dataclasses.replace(plan, model_sha256="0" * 64)
    (tmp_path / "other").mkdir()
    other.save(tmp_path / "other")
    with pytest.raises(ClusterError, match="is another file than where the run started"):
        _ = worker_of(str(tmp_path / "other")).predictor
    assert Plan.load(tmp_path / "other").model_sha256 == "0" * 64


def test_how_many_tasks_are_in_flight() -> None:
    shared, apart = Lanes(2, 2, True), Lanes(1, 3, False)
    assert shared.wanted(Counter()) == (CELLS, PREDICT)
    assert shared.wanted(Counter({PREDICT: 3, CELLS: 1})) == ()
    assert apart.wanted(Counter({PREDICT: 2})) == (CELLS,)
    assert apart.wanted(Counter({PREDICT: 1, CELLS: 5})) == (CELLS, PREDICT)
    assert apart.wanted(Counter({CELLS: 6})) == (), "forwarding waits for cells"


def test_devices_are_of_one_kind() -> None:
    assert device_list("cuda:0, cuda:1") == ["cuda:0", "cuda:1"] and device_list("") == []
    assert device_list("GPU-1f, MIG-2a") == ["GPU-1f", "MIG-2a"]
    for wrong in ("cpu,cuda:0", "gpu0", "cuda:one", "cpu,MIG-2a"):
        with pytest.raises(SettingsError, match="expected devices of one kind"):
            device_list(wrong)
