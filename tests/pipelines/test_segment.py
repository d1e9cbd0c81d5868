"""A slide in, cells out: the same cells, and the same bytes, however the work is cut up."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

import wsipipe
from tests.conftest import Phantom
from wsipipe.errors import OutputError, SettingsError, SlideError
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.phantom.slide import write_phantom
from wsipipe.raster.tiling import TILE
from wsipipe.schedule import serial
from wsipipe.schedule.pool import PoolEngine
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.task import PREDICT, Board
from wsipipe.schedule.work import Worker
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.prepare import prepare
from wsipipe.segmentation.publish import Done, publish
from wsipipe.segmentation.request import network_of
from wsipipe.segmentation.run import execute, open_work, run_segment
from wsipipe.settings import (
    CellSettings,
    GridSettings,
    PhantomSettings,
    RunSettings,
    SlideSettings,
    StainSettings,
    TissueSettings,
)
from wsipipe.stain import is_glass
from wsipipe.stain.unmix import HDAB

QUIET = Progress()


def job_of(source: Path, out: Path, block: int = 3072, workers: int = 1, **changes: object) -> SegmentJob:
    run = RunSettings(block=block, workers=workers, device="cpu", precision="fp32")
    job = SegmentJob(str(source), (out,), run=run)
    return dataclasses.replace(job, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cells of the phantom, found in one block."""
    out = tmp_path_factory.mktemp("whole") / "cells.parquet"
    run_segment(job_of(phantom.path, out), QUIET)
    return out


def test_finds_the_phantoms_nuclei(phantom: Phantom, whole: Path) -> None:
    cells = read_cells(whole)
    truth = phantom.truth.centroids((0, 0, 1536, 1024))
    tree = shapely.STRtree(cells.geometry.to_numpy())
    hit = np.unique(tree.query(shapely.points(truth), predicate="within")[0])
    assert len(hit) > 0.6 * len(truth)
    assert 0.6 * len(truth) < len(cells) < 1.4 * len(truth)


def test_polygons_are_valid_and_hardly_overlap(whole: Path) -> None:
    shapes = read_cells(whole).geometry.to_numpy()
    assert shapely.is_valid(shapes).all()
    a, b = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    a, b = a[a < b], b[a < b]
    shared = shapely.area(shapely.intersection(shapes[a], shapes[b]))
    smaller = np.minimum(shapely.area(shapes[a]), shapely.area(shapes[b]))
    assert (shared <= 0.05 * smaller).all()


def test_no_cell_is_cut_at_a_tile_or_block_border(phantom: Phantom, tmp_path: Path) -> None:
    out = tmp_path / "cells.parquet"
    run_segment(job_of(phantom.path, out, block=256), QUIET)
    assert straight_edges(read_cells(out).geometry.to_numpy(), [TILE - GridSettings.overlap, 256], (1536, 1024)) == 0


def straight_edges(shapes: np.ndarray, steps: list[int], size: tuple[int, int], shortest: float = 4.0) -> int:
    """Return how many polygon edges of at least *shortest* px run along a multiple of a step, off the slide's edge."""
    count = 0
    for ring in shapely.get_exterior_ring(shapes):
        xy = shapely.get_coordinates(ring)
        for axis in (0, 1):
            flat = (np.diff(xy[:, axis]) == 0) & (np.abs(np.diff(xy[:, 1 - axis])) >= shortest)
            at = xy[:-1, axis][flat]
            inner = (at > 0) & (at < size[axis])
            count += int(sum((at[inner] % step == 0).sum() for step in steps))
    return count


@pytest.mark.parametrize("block", [300, 700])
def test_any_block_size_gives_the_same_bytes(phantom: Phantom, whole: Path, tmp_path: Path, block: int) -> None:
    out = tmp_path / "cells.parquet"
    run_segment(job_of(phantom.path, out, block=block), QUIET)
    assert out.read_bytes() == whole.read_bytes()


class Steps(Progress):
    """Keeps every step of a stage, and what the stage was said to take."""

    def __init__(self) -> None:
        self.total: dict[str, int] = {}
        self.steps: dict[str, list[int]] = {}

    def start(self, stage: str, total: int) -> None:
        self.total[stage], self.steps[stage] = total, []

    def advance(self, stage: str, steps: int = 1) -> None:
        self.steps[stage].append(steps)


def test_progress_moves_with_every_batch_of_tiles(phantom: Phantom, whole: Path, tmp_path: Path) -> None:
    out, heard = tmp_path / "cells.parquet", Steps()
    run_segment(job_of(phantom.path, out, block=2048), heard)
    assert heard.total["cells"] == len(heard.steps["cells"]) == 1, "it is a single block"
    assert len(heard.steps["tiles"]) > 3 and sum(heard.steps["tiles"]) == heard.total["tiles"]
    assert out.read_bytes() == whole.read_bytes()


def test_shifted_blocks_one_after_the_other_give_the_same_bytes(phantom: Phantom, whole: Path, tmp_path: Path) -> None:
    job = job_of(phantom.path, tmp_path / "cells.parquet", block=512)
    prepared = prepare(job, QUIET)
    prepared = dataclasses.replace(prepared, plan=dataclasses.replace(prepared.plan, shift=(131, 77)))
    scratch = open_work(job.work, prepared)
    forwarded: list[tuple[int, int]] = []
    worker = Worker(scratch.folder, prepared.predictor)
    worker.maps_of = lambda batch, pixels: forwarded.extend(batch) or prepared.predictor.begin(pixels)  # type: ignore
    receipts: list = []
    serial.run(worker, Board(prepared.plan), receipts.append)
    publish(job, prepared, Done(receipts), QUIET)
    assert job.outputs[0].read_bytes() == whole.read_bytes()
    shown = {(i, j) for j, i in np.argwhere(prepared.plan.selected).tolist() if not is_glass(pixels_of(worker, i, j))}
    assert len(forwarded) == len(set(forwarded)), "each tile is forwarded once"
    assert set(forwarded) == shown, "and those that show only glass are not"


def pixels_of(worker: Worker, i: int, j: int) -> np.ndarray:
    return worker.raster.read(worker.plan.tiles.box(i, j))


def test_two_workers_give_the_same_bytes(phantom: Phantom, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.parquet"
    run_segment(job_of(phantom.path, out, block=400, workers=2), QUIET)
    assert out.read_bytes() == whole.read_bytes()


def test_an_interrupted_run_is_resumed(phantom: Phantom, whole: Path, tmp_path: Path) -> None:
    job = job_of(phantom.path, tmp_path / "cells.parquet", block=400)
    seen: list[int] = []

    class Stop(Progress):
        def advance(self, stage: str, steps: int = 1) -> None:
            seen.append(steps)
            if len(seen) == 7:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_segment(job, Stop())
    assert job.work.is_dir() and not job.outputs[0].exists()
    with PoolEngine() as engine:
        prepared = prepare(job, QUIET, network_of(job, engine))
        done = execute(job, prepared, engine, QUIET)
    redone = sum(r.count for r in done.receipts if r.task.kind == PREDICT)
    assert 0 < redone < int(prepared.plan.selected.sum())
    publish(job, prepared, done, QUIET)
    assert job.outputs[0].read_bytes() == whole.read_bytes()
    assert not job.work.exists()


def test_bounds_change_no_cell_inside_them(phantom: Phantom, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.parquet"
    run_segment(job_of(phantom.path, out, bounds=(500, 300, 900, 700)), QUIET)
    every, inside = read_cells(whole), read_cells(out)
    wanted = every[every.x.between(500, 900, "left") & every.y.between(300, 700, "left")]
    assert set(inside.cell_id) == set(wanted.cell_id) and len(inside) > 0


def test_outputs_agree_and_a_second_run_has_nothing_to_do(phantom: Phantom, tmp_path: Path) -> None:
    outputs = tmp_path / "a.geojson", tmp_path / "a.geojson.gz", tmp_path / "a.parquet"
    job = dataclasses.replace(job_of(phantom.path, outputs[0]), outputs=outputs, overlay=tmp_path / "a.png")
    job = dataclasses.replace(job, bounds=(300, 300, 800, 800))
    first = run_segment(job, QUIET)
    assert first.fresh and first.cells > 0 and job.overlay.stat().st_size > 1000  # type: ignore[union-attr]
    plain = outputs[0].read_bytes()
    assert gzip.decompress(outputs[1].read_bytes()) == plain
    features = json.loads(plain)["features"]
    assert len(features) == len(geopandas.read_parquet(outputs[2])) == first.cells
    assert {f["properties"]["objectType"] for f in features} == {"detection"}
    assert not run_segment(job, QUIET).fresh
    changed = dataclasses.replace(job, cells=CellSettings(min_area_um2=60))
    assert run_segment(changed, QUIET).fresh, "changed settings redo the work"


def test_what_the_file_says_of_itself(whole: Path) -> None:
    about = metadata(whole)
    assert about["model"]["name"] and about["model"]["licence"] and len(about["model"]["sha256"]) == 64
    assert about["mpp"] == [0.5, 0.5] and about["version"] == wsipipe.__version__
    assert about["recipe"]["device"] == "cpu"


def test_expanded_cells_hold_their_nuclei(phantom: Phantom, tmp_path: Path) -> None:
    out = tmp_path / "cells.geojson"
    job = job_of(phantom.path, out, cells=CellSettings(expand_um=3), bounds=(300, 300, 800, 800))
    run_segment(job, QUIET)
    features = json.loads(out.read_bytes())["features"]
    assert features and all(f["properties"]["objectType"] == "cell" and "nucleusGeometry" in f for f in features)
    outer = shapely.from_geojson([json.dumps(f["geometry"]) for f in features])
    inner = shapely.from_geojson([json.dumps(f["nucleusGeometry"]) for f in features])
    assert (shapely.area(outer) > shapely.area(inner)).all()


def test_python_returns_a_frame(phantom: Phantom) -> None:
    cells = wsipipe.segment(phantom.path, bounds=(300, 300, 700, 700), tissue=TissueSettings(tissue="none"))
    assert len(cells) > 0 and {"geometry", "area_um2", "probability"} <= set(cells.columns)


def test_glass_is_an_empty_but_valid_result(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "glass.png"), np.full((700, 900, 3), 243, np.uint8))
    out = tmp_path / "cells.geojson"
    result = run_segment(job_of(tmp_path / "glass.png", out, slide=SlideSettings(mpp=0.5)), QUIET)
    assert result.cells == 0 and json.loads(out.read_bytes())["features"] == []


def test_a_zarr_is_made_by_convert(phantom: Phantom, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cells\.zarr: segment writes single files.*`wsipipe convert cells\.parq"):
        run_segment(job_of(phantom.path, tmp_path / "cells.zarr"), QUIET)
    assert not any(tmp_path.iterdir())


def test_unknown_endings_are_refused_before_any_work(phantom: Phantom, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cells\.xml: unknown kind of output"):
        run_segment(job_of(phantom.path, tmp_path / "cells.xml"), QUIET)


def test_bounds_off_the_slide_are_refused(phantom: Phantom, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="lies outside the slide"):
        run_segment(job_of(phantom.path, tmp_path / "c.parquet", bounds=(9000, 9000, 9100, 9100)), QUIET)


def test_a_damaged_slide_fails_and_the_old_output_stays(tmp_path: Path) -> None:
    from wsipipe.phantom.slide import PhantomSettings, write_phantom

    slide, out = tmp_path / "slide.tiff", tmp_path / "cells.parquet"
    write_phantom(slide, PhantomSettings(width=1024, height=768, seed=3, mpp=0.5, tissue=0.9, corrupt_tiles=4))
    out.write_bytes(b"old")
    job = job_of(slide, out, tissue=TissueSettings(tissue="none"))
    with pytest.raises(SlideError, match="cannot be read, more than --max-bad-tiles"):
        run_segment(job, QUIET)
    assert out.read_bytes() == b"old"
    lenient = dataclasses.replace(job, run=dataclasses.replace(job.run, max_bad_tiles=1.0))
    assert run_segment(lenient, QUIET).bad_boxes > 0
    bad = [shapely.box(*box) for box in metadata(out)["bad_boxes"]]
    shapes = read_cells(out).geometry.to_numpy()
    assert len(shapes) and not shapely.intersects(shapely.union_all(bad), shapes).any()


def test_a_tile_store_gives_the_same_bytes_as_its_slide(phantom: Phantom, whole: Path, tmp_path: Path) -> None:
    from wsipipe.pipelines.tile import TileJob, plan_tile, tile

    job = TileJob(str(phantom.path), tmp_path / "slide.zarr")
    tile(job, *plan_tile(job))
    out = tmp_path / "cells.parquet"
    run_segment(job_of(job.output, out), QUIET)
    assert out.read_bytes() == whole.read_bytes()
    with pytest.raises(SettingsError, match="holds the pixels of its own tissue only"):
        run_segment(job_of(job.output, out, tissue=TissueSettings(tissue="none")), QUIET)


def test_a_real_slide_has_plausible_nuclei(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.parquet"
    slide = shared_data / "slides/CMU-1-Small-Region.svs"
    result = run_segment(job_of(slide, out, bounds=(1000, 1600, 1700, 2300)), QUIET)
    cells = read_cells(out)
    assert 1500 < result.density < 9000
    assert not [w for w in result.warnings if "oversize" not in w], "its keratin gives mosaic cells, and is told"
    assert 15 < cells.area_um2.median() < 80 and cells.probability.median() > 0.6
    about = metadata(out)
    assert about["mpp"] == pytest.approx([0.499, 0.499]) and about["mpp_source"] == "vendor property"
    assert about["working_mpp"] == pytest.approx([0.499, 0.499]), "a level within 2 % is used as it is"


def test_a_run_that_cannot_fit_is_refused(phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsipipe.segmentation.memory.free_memory", lambda: 10 * 2**20)
    with pytest.raises(SettingsError, match="give a smaller --block"):
        run_segment(job_of(phantom.path, tmp_path / "c.parquet"), QUIET)


def test_stains_of_an_hdab_slide(tmp_path: Path) -> None:
    """Cells of a brown slide are measured by DAB, however the work is cut up, and that is told and recorded."""
    slide = tmp_path / "slide.tiff"
    write_phantom(slide, PhantomSettings(width=768, height=512, tissue=1.0, mpp=0.5, staining="hdab", positive=0.3))
    told: list[str] = []
    progress = Progress()
    progress.say = told.append  # type: ignore[method-assign]
    run_segment(job_of(slide, tmp_path / "a.parquet"), progress)
    assert any(line.startswith("stains: taken for Hematoxylin and DAB") for line in told)
    run_segment(job_of(slide, tmp_path / "b.parquet", block=256), QUIET)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    cells = read_cells(tmp_path / "a.parquet")
    assert cells["eosin_od_mean"].isna().all() and cells["dab_od_mean"].max() > 0.3
    assert metadata(tmp_path / "a.parquet")["stain_vectors"] == HDAB.as_dict()
    run_segment(job_of(slide, tmp_path / "c.parquet", stain=StainSettings("he")), QUIET)
    other = read_cells(tmp_path / "c.parquet")
    assert "dab_od_mean" not in other and other["eosin_od_mean"].notna().all()
    assert other["cell_id"].tolist() == cells["cell_id"].tolist()
