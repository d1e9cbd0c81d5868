"""A slide that is replaced, mended or mixed up with another never ends in a result that says something else."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.damage import spoil_level
from wsipipe.errors import OutputError, SlideChanged
from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.pipelines.features import FeaturesJob, run_features
from wsipipe.pipelines.tile import TileJob, plan_tile, tile
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.work import Worker
from wsipipe.segmentation.batch import BatchJob, run_batch
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.prepare import prepare
from wsipipe.segmentation.run import open_work, run_segment
from wsipipe.settings import BatchSettings, GridSettings, RunSettings, TissueSettings
from wsipipe.slide import open_slide, stamp

QUIET, CPU = Progress(), RunSettings(device="cpu", block=256, batch=1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    for name, seed in (("a", 1), ("b", 2)):
        write_phantom(folder / f"{name}.tiff", PhantomSettings(width=250, height=200, seed=seed, mpp=0.5, tissue=0.9))
    return folder


@pytest.fixture
def slides(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "slides"))


def job_of(slide: Path, model: Path, out: Path, **changes: object) -> SegmentJob:
    job = SegmentJob(str(slide), (out,), str(model), run=CPU, tissue=TissueSettings(tissue="none"))
    return dataclasses.replace(job, **changes)  # type: ignore[arg-type]


class When(Progress):
    """Does something when a stage begins."""

    def __init__(self, stage: str, act: Callable[[], object]) -> None:
        self.stage, self.act = stage, act

    def start(self, stage: str, total: int) -> None:
        if stage == self.stage:
            self.act()


def touch(path: Path) -> None:
    """Give the file another time, as a mended copy has."""
    os.utime(path, ns=(0, stamp(path).modified_ns + 1))


@pytest.mark.parametrize("how", ["replaced", "mended"])
def test_segment_publishes_nothing_of_a_changed_slide(how: str, slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    job = job_of(slides / "a.tiff", tiny_model, tmp_path / "cells.parquet")
    act = {
        "replaced": lambda: os.replace(slides / "b.tiff", slides / "a.tiff"),
        "mended": lambda: touch(slides / "a.tiff"),
    }[how]
    with pytest.raises(SlideChanged, match="changed while it was read"):
        run_segment(job, When("tiles", act))
    assert not job.outputs[0].exists() and not job.record.exists()
    assert run_segment(job, QUIET).fresh
    assert json.loads(job.record.read_text())["kept"] == {"predicted": 0, "finished": 0}, "none of the other's work"


def test_workers_and_copies_refuse_another_file(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    job = job_of(slides / "a.tiff", tiny_model, tmp_path / "cells.parquet")
    scratch = open_work(job.work, prepare(job, QUIET))
    with open_slide(slides / "a.tiff") as slide:
        frozen = pickle.dumps(slide)
        assert pickle.loads(frozen).info == slide.info
        os.replace(slides / "b.tiff", slides / "a.tiff")
        slide._drop()  # type: ignore[attr-defined]  # as after an error
        with pytest.raises(SlideChanged):
            slide.read_region(0, 0, 0, 8, 8)
    with pytest.raises(SlideChanged):
        pickle.loads(frozen)
    with pytest.raises(SlideChanged):
        _ = Worker(scratch.folder).raster


def test_size_and_time_decide_what_is_up_to_date(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    job = job_of(slides / "a.tiff", tiny_model, tmp_path / "cells.parquet")
    assert run_segment(job, QUIET).fresh and not run_segment(job, QUIET).fresh
    before = job.outputs[0].read_bytes()
    assert json.loads(job.record.read_text())["slide_file"] == stamp(slides / "a.tiff")._asdict()
    touch(slides / "a.tiff")
    assert run_segment(job, QUIET).fresh and job.outputs[0].read_bytes() == before, "bytes are free of times"


def test_a_result_with_unreadable_areas_is_never_up_to_date(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    spoil_level(slides / "a.tiff", 0)
    run = dataclasses.replace(CPU, max_bad_tiles=1.0)
    like = job_of(slides / "a.tiff", tiny_model, tmp_path / "x", run=run)
    batch = BatchJob((str(slides),), tmp_path / "out", like, BatchSettings(format="parquet"))
    for expected in (("done", "done"), ("done", "skipped")):
        assert tuple(o.status for o in run_batch(batch, QUIET).outcomes) == expected


def test_a_failure_is_forgotten_when_the_file_is_another(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    spoil_level(slides / "a.tiff", 0)
    like = job_of(slides / "a.tiff", tiny_model, tmp_path / "x")
    batch = BatchJob((str(slides / "a.tiff"),), tmp_path / "out", like, BatchSettings(format="parquet"))
    assert "failed" not in run_batch(batch, QUIET).outcomes[0].reason
    assert "--retry-failed" in run_batch(batch, QUIET).outcomes[0].reason
    touch(slides / "a.tiff")
    assert "--retry-failed" not in run_batch(batch, QUIET).outcomes[0].reason


def test_staged_copies_are_compared(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    from wsipipe.segmentation.staging import Stager

    with Stager(tmp_path / "fast", 10**9, [str(slides / "a.tiff")], lambda index: True, print) as stager:
        assert stager.path(0)
        touch(slides / "a.tiff")
        with pytest.raises(SlideChanged):
            stager.path(0)


def test_segment_does_not_replace_another_slides_cells(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.parquet"
    run_segment(job_of(slides / "a.tiff", tiny_model, out), QUIET)
    before, other = out.read_bytes(), job_of(slides / "b.tiff", tiny_model, out)
    for job in (other, dataclasses.replace(other, outputs=(tmp_path / "cells.geojson",), force=True)):
        with pytest.raises(OutputError, match=r"holds the result of .*a\.tiff, not of .*b\.tiff.*--overwrite"):
            run_segment(job, QUIET)
    assert out.read_bytes() == before
    coarse = job_of(slides / "a.tiff", tiny_model, out, grid=GridSettings(overlap=32))
    assert run_segment(coarse, QUIET).fresh, "the same slide, other settings"
    os.rename(slides / "a.tiff", slides / "moved.tiff")
    assert not run_segment(dataclasses.replace(coarse, source=str(slides / "moved.tiff")), QUIET).fresh
    (tmp_path / "cells.run.json").unlink()
    with pytest.raises(OutputError, match="the result of another slide"):
        run_segment(other, QUIET)
    assert run_segment(dataclasses.replace(other, overwrite=True), QUIET).fresh and out.read_bytes() != before


def test_tile(slides: Path, tmp_path: Path) -> None:
    job = TileJob(str(slides / "a.tiff"), tmp_path / "s.zarr")
    other = dataclasses.replace(job, slide=str(slides / "b.tiff"))

    def run(job: TileJob, **more: object) -> bool:
        return tile(dataclasses.replace(job, **more), *plan_tile(job))  # type: ignore[arg-type]

    with pytest.raises(SlideChanged):
        tile(job, *plan_tile(job), progress=lambda done, total: touch(slides / "a.tiff"))
    assert not job.output.exists() and run(job) and not run(job)
    touch(slides / "a.tiff")
    assert run(job) and not run(job)
    with pytest.raises(OutputError, match="--overwrite"):
        run(other)
    assert run(other, overwrite=True)


def test_features(slides: Path, tiny_model: Path, tmp_path: Path) -> None:
    job = FeaturesJob(str(slides / "a.tiff"), tmp_path / "f.h5", str(tiny_model), run=CPU)
    other = dataclasses.replace(job, source=str(slides / "b.tiff"))
    with pytest.raises(SlideChanged):
        run_features(job, When("tiles", lambda: touch(slides / "a.tiff")))
    assert not job.output.exists() and run_features(job, QUIET).fresh and not run_features(job, QUIET).fresh
    touch(slides / "a.tiff")
    assert run_features(job, QUIET).fresh
    with pytest.raises(OutputError, match="--overwrite"):
        run_features(other, QUIET)
    assert run_features(dataclasses.replace(other, overwrite=True), QUIET).fresh
