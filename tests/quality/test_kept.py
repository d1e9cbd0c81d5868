"""The quality map is made once: what a run has found is read by measure, report and the next run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.masters import write_master
from wsipipe.cli.main import main
from wsipipe.formats.parquet import metadata
from wsipipe.phantom.slide import write_phantom
from wsipipe.quality.kept import beside, keep, map_of, write
from wsipipe.quality.map import Quality, QualityMap
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import QUALITY, SegmentJob
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import PhantomSettings, RunSettings, TissueSettings
from wsipipe.slide import ArraySlide, fingerprint, open_slide
from wsipipe.store import open_store
from wsipipe.tissue import find_tissue

SIDE = 512
MPP = (0.5, 0.5)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "slide.tiff"
    write_phantom(path, PhantomSettings(width=SIDE, height=SIDE, mpp=0.5, seed=5, tissue=0.9))
    return path


def _marked(path: Path, kept: Path, kind: Quality = Quality.BUBBLE) -> QualityMap:
    """Return a map of the slide that says of its left half what no look at the slide would, kept as *kept*."""
    with open_slide(path) as slide:
        found = map_of(slide, MPP)
    classes = found.classes.copy()
    classes[:, : classes.shape[1] // 2] = kind
    marked = dataclasses.replace(found, classes=classes)
    write(kept, marked)
    return marked


def _cells(slide: Path, path: Path) -> Path:
    xy = np.stack([a.ravel() for a in np.mgrid[40:SIDE:40, 40:SIDE:40]], axis=1)[:, ::-1]
    about = {"fingerprint": fingerprint(slide), "size": [SIDE, SIDE], "mpp": [0.5, 0.5], "settings": {}}
    return write_master(path, xy, 0, 6.0, **about)


def test_what_is_kept_is_what_was_made(slide: Path, tmp_path: Path) -> None:
    with open_slide(slide) as opened:
        made = map_of(opened, MPP)
        keep(tmp_path / "a.npz", made)
        read = map_of(opened, MPP, [tmp_path / "none.npz", tmp_path / "a.npz"])
    assert (read.classes == made.classes).all() and np.array_equal(read.blur, made.blur, equal_nan=True)
    assert (read.scale, read.mpp, read.warnings, read.about) == (made.scale, made.mpp, made.warnings, made.about)
    keep(tmp_path / "b.npz", read)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_another_slide_resolution_or_damage_is_passed_over(slide: Path, tmp_path: Path) -> None:
    kept = tmp_path / "x.npz"
    marked = _marked(slide, kept)
    with open_slide(slide) as opened:
        assert (map_of(opened, MPP, [kept]).classes == marked.classes).all()
        assert (map_of(opened, (0.25, 0.25), [kept]).classes == Quality.BUBBLE).mean() < 0.1
    other = tmp_path / "other.tiff"
    write_phantom(other, PhantomSettings(width=SIDE, height=SIDE, mpp=0.5, seed=6, tissue=0.9))
    with open_slide(other) as opened:
        assert (map_of(opened, MPP, [kept]).classes == Quality.BUBBLE).mean() < 0.1
    whole = kept.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:200] + bytes(200) + whole[400:], b"", b"PK", b"\x80\x04N."):
        kept.write_bytes(damaged)
        with open_slide(slide) as opened:
            assert (map_of(opened, MPP, [kept]).classes == Quality.BUBBLE).mean() < 0.1
            keep(kept, map_of(opened, MPP))
        assert kept.read_bytes() != damaged, "a damaged one is replaced"


def test_a_picture_in_memory_has_none(tmp_path: Path) -> None:
    found = map_of(ArraySlide([np.full((256, 256, 3), 243, np.uint8)], 0.5), MPP, [tmp_path / "x.npz"])
    keep(tmp_path / "x.npz", found)
    assert not list(tmp_path.iterdir())


def test_measure_and_report_read_it(slide: Path, tmp_path: Path) -> None:
    cells, more = _cells(slide, tmp_path / "cells.parquet"), tmp_path / "more.parquet"
    assert main(["measure", str(cells), "--slide", str(slide), "--add", "quality", "-o", str(more)]) == 0
    assert (pd.read_parquet(more)["quality"] != Quality.BUBBLE).all() and beside(more).exists()
    _marked(slide, beside(more))
    again = tmp_path / "again.parquet"
    assert main(["measure", str(more), "--slide", str(slide), "--add", "quality", "-o", str(again)]) == 0
    measured = pd.read_parquet(again)
    assert (measured["quality"][measured["x"] < SIDE / 2 - 16] == Quality.BUBBLE).all()
    page, table = tmp_path / "more.html", tmp_path / "q.csv"
    assert main(["report", str(more), "--slide", str(slide), "--quality", "-o", str(page)]) == 0
    assert "</span>air bubble" in page.read_text() or "</span>bubble" in page.read_text()
    assert main(["quality", str(slide), "--cells", str(more), "-o", str(table)]) == 0
    assert pd.read_csv(table).set_index("quality").loc["bubble", "share"] > 0.3


def test_a_run_keeps_it_and_goes_by_it(slide: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.parquet"
    run = ["segment", str(slide), "--model", str(tiny_model), "-o", str(out), "--exclude-quality", "bubble", "--force"]
    assert main(run) == 0
    with open_slide(slide) as opened:
        assert np.load(beside(out))["classes"].tobytes() == map_of(opened, MPP).classes.tobytes()
    whole = metadata(out)["tissue_area_um2"]
    _marked(slide, beside(out))
    assert main(run) == 0
    assert metadata(out)["tissue_area_um2"] < 0.7 * whole
    # summarise and what is made of the cells find the same tissue again
    more, table = tmp_path / "more.parquet", tmp_path / "t.csv"
    assert main(["measure", str(out), "--slide", str(slide), "-o", str(more)]) == 0
    assert beside(more).read_bytes() == beside(out).read_bytes()
    assert main(["summarise", str(more), "-o", str(table)]) == 0
    assert pd.read_csv(table)["area_mm2"][0] == pytest.approx(metadata(out)["tissue_area_um2"] * 1e-6, rel=1e-3)


def test_an_unfinished_run_has_it_too(slide: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A run that goes on reads the map that it made before it was stopped, and does not look at the slide again."""
    out = tmp_path / "cells.parquet"
    run = RunSettings(device="cpu", precision="fp32", block=256)
    job = SegmentJob(str(slide), (out,), str(tiny_model), run=run, tissue=TissueSettings(exclude_quality="bubble"))

    class Stopped(Exception):
        """Of a run that has only begun."""

    class Stopping(Progress):
        def advance(self, stage: str, steps: int = 1) -> None:
            if any(job.work.glob(f"*/{QUALITY}")):
                raise Stopped

    with pytest.raises(Stopped):
        run_segment(job, Stopping())
    (kept,) = job.work.glob(f"*/{QUALITY}")
    assert not out.exists() and not beside(out).exists()
    with open_slide(slide) as opened:
        whole = find_tissue(opened, MPP, TissueSettings()).area_um2
    _marked(slide, kept)
    run_segment(job, Progress())
    assert metadata(out)["tissue_area_um2"] < 0.7 * whole
    assert (np.load(beside(out))["classes"][:, :10] == Quality.BUBBLE).all(), "handed on to the results"


def test_tiles_keep_it_too(slide: Path, tmp_path: Path) -> None:
    """`tile --exclude-quality` lays it beside the store, and goes by it when it is called again."""
    store = tmp_path / "store.zarr"
    run = ["tile", str(slide), "-o", str(store), "--exclude-quality", "bubble"]
    assert main(run) == 0
    with open_slide(slide) as opened:
        assert np.load(beside(store))["classes"].tobytes() == map_of(opened, MPP).classes.tobytes()
    whole = open_store(store).tissue.area_um2
    _marked(slide, beside(store))
    assert main(run) == 0
    assert open_store(store).tissue.area_um2 < 0.7 * whole
    plain = tmp_path / "plain.zarr"
    assert main(["tile", str(slide), "-o", str(plain)]) == 0 and not beside(plain).exists()


def test_a_run_without_it_keeps_none(slide: Path, tiny_model: Path, tmp_path: Path) -> None:
    assert main(["segment", str(slide), "--model", str(tiny_model), "-o", str(tmp_path / "cells.parquet")]) == 0
    assert not list(tmp_path.glob("*.npz"))
