"""A pyramid level that cannot be read hides no tissue: other levels are asked, and what none shows is not glass."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely

from tests.damage import TILE_COUNTS, TILE_OFFSETS, pages, set_tag, spoil_level
from wsipipe.errors import SlideError
from wsipipe.formats.features import features_made
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.pipelines.corpus import CorpusJob, run_build_corpus
from wsipipe.pipelines.features import FeaturesJob, run_features
from wsipipe.pipelines.tile import TileJob, plan_tile, tile
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import CorpusSettings, RunSettings, TissueSettings
from wsipipe.slide import ArraySlide, open_slide
from wsipipe.store import open_store
from wsipipe.tissue import Tissue, find_tissue

QUIET = Progress()
SETTINGS = PhantomSettings(width=700, height=530, seed=3, mpp=0.5, tissue=0.4, vendor="generic", level_factor=2)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "sound.tiff"
    write_phantom(path, SETTINGS)
    return path


def tissue_of(path: Path, backend: str) -> Tissue:
    with open_slide(path, backend=backend) as slide:
        return find_tissue(slide, (0.5, 0.5), TissueSettings())


def no_counts(path: Path, level: int) -> None:
    set_tag(path, level, TILE_COUNTS, [0] * len(pages(path)[level].databytecounts))


def no_offsets(path: Path, level: int) -> None:
    set_tag(path, level, TILE_OFFSETS, [0] * len(pages(path)[level].dataoffsets))


def far_offsets(path: Path, level: int) -> None:
    set_tag(path, level, TILE_OFFSETS, [1 << 40] * len(pages(path)[level].dataoffsets))


def one_offset(path: Path, level: int) -> None:
    """Point one tile at bytes that are no picture."""
    first, *others = pages(path)[level].dataoffsets
    set_tag(path, level, TILE_OFFSETS, [first + 1, *others])


@pytest.mark.parametrize("backend", ["openslide", "tiffslide"])
@pytest.mark.parametrize("spoil", [spoil_level, no_counts, no_offsets, far_offsets, one_offset])
def test_other_levels_are_asked(spoil: Callable[[Path, int], None], backend: str, sound: Path, tmp_path: Path) -> None:
    if (spoil, backend) == (far_offsets, "openslide"):
        pytest.skip("OpenSlide does not open it")
    broken = Path(shutil.copy(sound, tmp_path / "broken.tiff"))
    spoil(broken, 1)
    whole, found = (shapely.MultiPolygon(tissue_of(path, backend).polygons) for path in (sound, broken))
    assert whole.area > 0 and shapely.symmetric_difference(whole, found).area < 0.01 * whole.area
    assert any("overview is damaged" in text for text in tissue_of(broken, backend).warnings)
    assert not any("overview" in text for text in tissue_of(sound, backend).warnings)


def job_of(slide: Path, model: Path, out: Path, **run: object) -> SegmentJob:
    settings = RunSettings(device="cpu", block=1024, batch=2, **run)  # type: ignore[arg-type]
    return SegmentJob(str(slide), (out,), str(model), run=settings)


def test_the_same_cells_without_the_small_level(sound: Path, tiny_model: Path, tmp_path: Path) -> None:
    """But for some at the very edge of the tissue: JPEG blurs each level in its own way."""
    broken = Path(shutil.copy(sound, tmp_path / "broken.tiff"))
    spoil_level(broken, 1)
    edge = shapely.MultiPolygon(tissue_of(sound, "auto").polygons).boundary.buffer(4)
    shapes = []
    for slide in (sound, broken):
        job = job_of(slide, tiny_model, tmp_path / f"{slide.stem}.parquet")
        assert not run_segment(job, QUIET).bad_boxes
        cells = read_cells(job.outputs[0])
        inner = cells[~shapely.contains_xy(edge, cells.x, cells.y)]
        assert len(inner) > 0.9 * len(cells)
        shapes.append(set(map(bytes, inner.geometry.to_wkb())))
    assert shapes[0] == shapes[1] and len(shapes[0]) > 50


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a slide with all pyramid levels unreadable."""
    path = tmp_path_factory.mktemp("dead") / "dead.tiff"
    write_phantom(path, dataclasses.replace(SETTINGS, width=560, height=300))
    for level in range(len(pages(path)))[::-1]:
        spoil_level(path, level)
    return path


def test_what_no_level_shows_is_not_glass(dead: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Told, recorded and refused above the limit, by every command that searches for tissue."""
    said = tissue_of(dead, "openslide")
    assert said.unread_um2 > 0 and any("in any pyramid level" in text for text in said.warnings)
    job = job_of(dead, tiny_model, tmp_path / "cells.parquet")
    with pytest.raises(SlideError, match="more than --max-bad-tiles"):
        run_segment(job, QUIET)
    lenient = job_of(dead, tiny_model, tmp_path / "cells.parquet", max_bad_tiles=1.0)
    assert run_segment(lenient, QUIET).bad_boxes and metadata(job.outputs[0])["bad_boxes"]
    store = TileJob(str(dead), tmp_path / "s.zarr")
    with pytest.raises(SlideError, match="--max-bad-tiles"):
        tile(store, *plan_tile(store))
    kept = TileJob(str(dead), tmp_path / "s.zarr", max_bad=1.0)
    assert tile(kept, *plan_tile(kept)) and open_store(kept.output).raster.bad
    assert tile(kept, *plan_tile(kept)), "never up to date"
    few = FeaturesJob(str(dead), tmp_path / "f.h5", str(tiny_model), run=RunSettings(device="cpu"))
    with pytest.raises(SlideError, match="--max-bad-tiles"):
        run_features(few, QUIET)
    assert not few.output.exists()
    many = FeaturesJob(str(dead), few.output, str(tiny_model), run=RunSettings(device="cpu", max_bad_tiles=1.0))
    assert run_features(many, QUIET).bad and features_made(many.output)["bad_boxes"]
    assert run_features(many, QUIET).fresh, "never up to date"


def test_a_corpus_leaves_such_a_slide_out(sound: Path, dead: Path, tmp_path: Path) -> None:
    heard: list[str] = []

    class Heard(Progress):
        def say(self, line: str) -> None:
            heard.append(line)

    settings = CorpusSettings(patch=64, max_background=1.0, min_focus=0.0, threads=1)
    run_build_corpus(CorpusJob((str(sound), str(dead)), tmp_path / "c.zarr", settings=settings), Heard())
    assert any("dead" in line and "--max-bad-tiles" in line for line in heard)


def test_a_detached_piece_that_cannot_be_read_counts_as_tissue() -> None:
    rgb = np.full((1200, 1600, 3), 240, np.uint8)
    rgb[200:500, 200:500] = rgb[800:1200, 1200:1600] = (180, 90, 150)
    hole = (1160, 760, 1600, 1200)
    whole, torn = (
        find_tissue(ArraySlide([rgb, rgb[::4, ::4].copy()], 0.5, bad=bad), (0.5, 0.5), TissueSettings())
        for bad in ((), (hole,))
    )
    assert len(whole.polygons) == len(torn.polygons) == 2 and not whole.unread_um2
    assert shapely.MultiPolygon(torn.polygons).covers(shapely.box(*hole)) and torn.unread_um2 >= 440**2 * 0.25
    assert any("in any pyramid level" in text for text in torn.warnings)


def test_features_that_go_on_remember_what_could_not_be_read(
    dead: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Progress):
        seen = 0

        def advance(self, stage: str, steps: int = 1) -> None:
            self.seen += steps
            if self.seen >= 2:
                raise KeyboardInterrupt

    monkeypatch.setattr("wsipipe.pipelines.features.FLUSH", 1)
    run = RunSettings(device="cpu", batch=1, max_bad_tiles=1.0)
    one, other = (FeaturesJob(str(dead), tmp_path / f"{k}.h5", str(tiny_model), run=run) for k in (1, 2))
    whole = run_features(one, QUIET)
    with pytest.raises(KeyboardInterrupt):
        run_features(other, Stop())
    assert run_features(other, QUIET) == whole
    assert features_made(other.output)["bad_boxes"] == features_made(one.output)["bad_boxes"]
