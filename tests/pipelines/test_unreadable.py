"""Tiles that cannot be decoded are counted, boxed and masked by every reader, and too many of them fail the slide."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import shapely

from tests.slide.helpers import TIFF_READERS, need
from wsipipe.errors import SlideError
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.raster.unreadable import covered_px
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import ExportSettings, RunSettings, SlideSettings, TissueSettings
from wsipipe.units import Box

QUIET = Progress()
SIDE = 600


class Damaged(NamedTuple):
    """A slide with tiles cut short, where these are, and the cells of the same slide undamaged."""

    path: Path
    boxes: tuple[Box, ...]
    sound: Path


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    folder = tmp_path_factory.mktemp("damaged")
    settings = PhantomSettings(width=SIDE, height=SIDE, seed=3, mpp=0.5, tissue=0.9)
    write_phantom(folder / "sound.svs", settings)
    truth = write_phantom(folder / "damaged.svs", dataclasses.replace(settings, corrupt_tiles=1))
    return Damaged(folder / "damaged.svs", tuple(truth.bad), folder / "sound.svs")


def job_of(slide: Path, model: Path, out: Path, backend: str, **run: object) -> SegmentJob:
    settings = {"device": "cpu", "block": 256, "batch": 2, "max_bad_tiles": 1.0, **run}
    return SegmentJob(
        str(slide),
        (out, out.with_suffix(".geojson")),
        str(model),
        slide=SlideSettings(backend=backend),
        tissue=TissueSettings(tissue="none"),
        run=RunSettings(**settings),  # type: ignore[arg-type]
        export=ExportSettings(unreadable=True),
    )


@pytest.mark.parametrize("backend", TIFF_READERS)
def test_counted_boxed_and_masked(backend: str, damaged: Damaged, tiny_model: Path, tmp_path: Path) -> None:
    need(backend)
    job = job_of(damaged.path, tiny_model, tmp_path / "cells.parquet", backend)
    result = run_segment(job, QUIET)
    truth = shapely.union_all([shapely.box(*box) for box in damaged.boxes])
    # boxed: the whole tile, and nothing but pixels of it up to the smallest part that is tried again
    about = metadata(job.outputs[0])
    lost = shapely.union_all([shapely.box(*box) for box in about["bad_boxes"]])
    assert lost.covers(truth) and truth.buffer(64).covers(lost)
    # counted
    assert result.bad_boxes == len(about["bad_boxes"]) > 0
    assert result.bad_share == pytest.approx(lost.area / SIDE**2)
    assert about["tissue_area_um2"] == pytest.approx((SIDE**2 - lost.area) * 0.25, rel=1e-6)
    record = json.loads(job.record.read_text())
    assert record["bad_boxes"] == result.bad_boxes and record["bad_share"] == pytest.approx(result.bad_share)
    # masked: no cell touches it, and far from it cells are those of the sound slide
    shapes = read_cells(job.outputs[0])
    assert len(shapes) and not shapes.intersects(lost).any()
    sound = job_of(damaged.sound, tiny_model, tmp_path / "sound.parquet", backend)
    assert run_segment(sound, QUIET).bad_boxes == 0
    whole = read_cells(sound.outputs[0])
    assert whole.intersects(truth).any()
    far = lost.buffer(2 * 256)
    ours, theirs = (set(map(bytes, f[~f.intersects(far)].geometry.to_wkb())) for f in (shapes, whole))
    assert ours == theirs
    # said in the export, on request
    features = json.loads(job.outputs[1].read_bytes())["features"]
    annotations = [f for f in features if f["properties"]["objectType"] == "annotation"]
    assert len(annotations) == result.bad_boxes
    # the same bytes however the work is cut up
    other = job_of(damaged.path, tiny_model, tmp_path / "other.parquet", backend, block=300)
    run_segment(other, QUIET)
    assert other.outputs[0].read_bytes() == job.outputs[0].read_bytes()


def test_boxes_that_overlap_are_counted_once() -> None:
    boxes = np.random.default_rng(0).integers(0, 40, (30, 2, 2))
    boxes = np.concatenate([boxes.min(1), boxes.max(1) + 1], 1)
    mask = np.zeros((50, 50), bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    assert covered_px(boxes) == mask.sum() and covered_px(boxes[:0]) == 0


@pytest.mark.parametrize("backend", TIFF_READERS)
def test_too_many_fail_the_slide(backend: str, damaged: Damaged, tiny_model: Path, tmp_path: Path) -> None:
    need(backend)
    job = job_of(damaged.path, tiny_model, tmp_path / "cells.parquet", backend, max_bad_tiles=0.01)
    with pytest.raises(SlideError, match=r"of the analysed area cannot be read, more than --max-bad-tiles 1\.0%"):
        run_segment(job, QUIET)
    assert not job.outputs[0].exists() and not job.record.exists()
    # what was done is kept: with a higher limit only the results are written
    lenient = dataclasses.replace(job, run=dataclasses.replace(job.run, max_bad_tiles=1.0))
    assert run_segment(lenient, QUIET).bad_boxes > 0
    assert json.loads(job.record.read_text())["kept"]["finished"] == 9
