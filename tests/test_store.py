from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import shapely

from wsipipe.errors import OutputError, SettingsError, StoreError, TileReadError
from wsipipe.raster import CHUNK, SlideRaster, slide_grid
from wsipipe.raster.tiling import TileGrid
from wsipipe.runs.work import JOURNAL
from wsipipe.settings import SlideSettings, StoreSettings, TissueSettings
from wsipipe.slide import ArraySlide
from wsipipe.store import StorePlan, is_store, open_raster, open_store, plan_store, tissue_tiles, write_store
from wsipipe.tissue import Tissue

SIZE = 3000, 2300
BLOB = shapely.Point(1200, 1000).buffer(800)
SPOT = shapely.Point(700, 600).buffer(60)
SMALL = StoreSettings(shard=1024, reach_um=20)


def picture(seed: int = 0) -> np.ndarray:
    """Return pixels that compress badly."""
    return np.random.default_rng(seed).integers(0, 256, (*SIZE[::-1], 3), np.uint8)


def raster_of(pixels: np.ndarray, target: float = 0.4, **slide: object) -> SlideRaster:
    opened = ArraySlide([pixels], mpp=0.25, background=(241, 242, 243), **slide)  # type: ignore[arg-type]
    return SlideRaster(opened, slide_grid(opened.info, (0.25, 0.25), target))


def tissue_of(raster: SlideRaster, shape: shapely.Geometry = BLOB) -> Tissue:
    return Tissue.of(shape, raster.slide, (0.25, 0.25), "auto")


def plan_of(raster: SlideRaster, settings: StoreSettings = SMALL, shape: shapely.Geometry = BLOB) -> StorePlan:
    tiles = TileGrid(raster.grid.size, 64)
    return plan_store(raster, tissue_of(raster, shape), tiles, settings, TissueSettings())


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_selected_tiles_read_the_same_pixels_as_from_the_slide(tmp_path: Path) -> None:
    raster = raster_of(picture())
    plan = plan_of(raster)
    assert write_store(raster, plan, tmp_path / "a.zarr")
    store = open_store(tmp_path / "a.zarr")
    assert store.raster.grid == raster.grid
    assert store.raster.fingerprint == raster.fingerprint
    assert store.raster.tile_grid == plan.tiles
    assert np.array_equal(store.raster.selected, plan.selected)
    assert 0 < plan.selected.sum() < plan.selected.size
    for j, i in np.argwhere(plan.selected):
        box = plan.tiles.box(int(i), int(j))
        assert np.array_equal(store.raster.read(box), raster.read(box))


def test_a_store_remembers_slide_and_tissue(tmp_path: Path) -> None:
    raster = raster_of(picture(), bounds=(10, 20, 2000, 2100), objective=40.0)
    write_store(raster, plan_of(raster), tmp_path / "a.zarr")
    store, tissue = open_store(tmp_path / "a.zarr"), tissue_of(raster)
    assert store.tissue == tissue
    assert store.base_mpp == (0.25, 0.25)
    for name in ("levels", "mpp", "mpp_source", "bounds", "background", "objective", "vendor", "scenes", "backend"):
        assert getattr(store.raster.slide, name) == getattr(raster.slide, name)


def test_pixels_that_no_tile_reads_have_the_background_colour(tmp_path: Path) -> None:
    raster = raster_of(picture())
    write_store(raster, plan_of(raster), tmp_path / "a.zarr")
    store = open_store(tmp_path / "a.zarr").raster
    width, height = raster.grid.size
    assert (store.read((width - 50, height - 50, width, height)) == raster.slide.background).all()


@pytest.mark.parametrize("target", [0.25, 0.5])
def test_a_slide_without_a_tissue_map_is_stored_whole(tmp_path: Path, target: float) -> None:
    raster = raster_of(picture(), target)
    tissue = Tissue.of(shapely.box(0, 0, *SIZE), raster.slide, (0.25, 0.25), "none")
    plan = plan_store(raster, tissue, TileGrid(raster.grid.size, 64), SMALL, TissueSettings(tissue="none"))
    assert plan.selected.all() and plan.chunks.all()
    write_store(raster, plan, tmp_path / "a.zarr")
    box = (-300, -300, raster.grid.size[0] + 300, raster.grid.size[1] + 300)
    assert np.array_equal(open_store(tmp_path / "a.zarr").raster.read(box), raster.read(box))


@pytest.mark.parametrize("before, now", [(64, 32), (32, 64), (32, 32)])
def test_a_store_made_at_another_overlap_serves_as_far_as_it_reaches(before: int, now: int, tmp_path: Path) -> None:
    raster = raster_of(picture())
    wanted = TileGrid(raster.grid.size, now)
    needed = tissue_tiles(wanted, tissue_of(raster, SPOT), raster.grid, 56)
    for name, reach in (("wide", StoreSettings.reach_um), ("narrow", 0.0)):
        settings, tiles = StoreSettings(shard=1024, reach_um=reach), TileGrid(raster.grid.size, before)
        plan = plan_store(raster, tissue_of(raster, SPOT), tiles, settings, TissueSettings())
        write_store(raster, plan, tmp_path / name)
    wide, narrow = (open_store(tmp_path / name).raster for name in ("wide", "narrow"))
    wide.require(wanted, needed)
    for i, j in np.argwhere(needed)[:, ::-1].tolist():
        assert np.array_equal(wide.read(wanted.box(i, j)), raster.read(wanted.box(i, j)))
    far = tissue_tiles(wanted, tissue_of(raster, SPOT), raster.grid, 600)
    with pytest.raises(StoreError, match="were not stored"):
        narrow.require(wanted, far)


def test_a_slide_without_tissue_gives_an_empty_store(tmp_path: Path) -> None:
    raster = raster_of(picture())
    plan = plan_of(raster, shape=shapely.Polygon())
    write_store(raster, plan, tmp_path / "a.zarr")
    store = open_store(tmp_path / "a.zarr")
    assert store.tissue.is_empty and not store.raster.selected.any()
    assert (store.raster.read((0, 0, 600, 600)) == raster.slide.background).all()


def test_few_files(tmp_path: Path) -> None:
    raster = raster_of(picture(), 0.25)
    plan = plan_of(raster, StoreSettings(reach_um=20))
    write_store(raster, plan, tmp_path / "a.zarr")
    names = set(files(tmp_path / "a.zarr"))
    assert {name for name in names if name.startswith("pixels")} == {"pixels/zarr.json", "pixels/c/0/0/0"}
    assert len(names) == 11
    assert JOURNAL not in names


@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_workers_and_repeats_give_the_same_bytes(tmp_path: Path, codec: str) -> None:
    settings = StoreSettings(codec=codec, shard=1024)
    for name, workers in (("a", 1), ("b", 3)):
        raster = raster_of(picture())
        assert write_store(raster, plan_of(raster, settings), tmp_path / name, workers=workers)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_what_is_up_to_date_is_left_alone_and_what_is_not_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    raster = raster_of(picture())
    assert write_store(raster, plan_of(raster), path)
    before = files(path)
    assert not write_store(raster, plan_of(raster), path)
    assert files(path) == before
    other = raster_of(picture(1))
    assert write_store(other, plan_of(other), path)
    assert open_store(path).raster.fingerprint == other.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


class Stop(Exception):
    pass


def stop_after(count: int) -> object:
    def progress(done: int, _total: int) -> None:
        if done > count:
            raise Stop

    return progress


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.zarr", tmp_path / "whole.zarr"
    raster = raster_of(picture())
    plan = plan_of(raster)
    write_store(raster, plan, whole)
    with pytest.raises(Stop):
        write_store(raster, plan, path, progress=stop_after(5))  # type: ignore[arg-type]
    assert not path.exists()
    work = tmp_path / ".a.zarr.work"
    with pytest.raises(StoreError, match="unfinished; run the same `wsipipe tile` command again"):
        open_store(work)
    with (work / JOURNAL).open("a") as file:
        file.write('{"shard": [1,')  # the line that a crash cut short
    loaded: list[int] = []
    assert write_store(raster, plan, path, progress=lambda done, total: loaded.append(done))
    assert 0 < len(loaded) < plan.chunks.sum()
    assert loaded[-1] == plan.chunks.sum()
    assert files(path) == files(whole)


def test_the_remains_of_another_run_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    other = raster_of(picture(1))
    with pytest.raises(Stop):
        write_store(other, plan_of(other), path, progress=stop_after(5))  # type: ignore[arg-type]
    raster = raster_of(picture())
    write_store(raster, plan_of(raster), path)
    write_store(raster, plan_of(raster), tmp_path / "whole.zarr")
    assert files(path) == files(tmp_path / "whole.zarr")


KILLED = """
    import sys, time
    sys.path.insert(0, {tests!r})
    import test_store as t
    raster = t.raster_of(t.picture())
    plan = t.plan_of(raster)
    t.write_store(raster, plan, {path!r}, progress=lambda done, total: time.sleep(0.05))
"""


def test_killed_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.zarr", tmp_path / "whole.zarr"
    code = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parent), path=str(path))
    run = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    journal = tmp_path / ".a.zarr.work" / JOURNAL
    deadline = time.monotonic() + 120
    while not journal.exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not path.exists()
    raster = raster_of(picture())
    plan = plan_of(raster)
    loaded: list[int] = []
    assert write_store(raster, plan, path, progress=lambda done, total: loaded.append(done))
    assert 0 < len(loaded) < plan.chunks.sum()
    write_store(raster, plan, whole)
    assert files(path) == files(whole)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    raster = raster_of(picture())
    plan = plan_of(raster)

    def intrude(_done: int, _total: int) -> None:
        with pytest.raises(OutputError, match="works on it; wait for it"):
            write_store(raster, plan, tmp_path / "a.zarr")
        raise Stop

    with pytest.raises(Stop):
        write_store(raster, plan, tmp_path / "a.zarr", progress=intrude)


def test_unreadable_pixels_are_remembered(tmp_path: Path) -> None:
    raster = raster_of(picture(), bad=[(900, 800, 905, 805)])
    plan = plan_of(raster)
    write_store(raster, plan, tmp_path / "a.zarr")
    store = open_store(tmp_path / "a.zarr").raster
    assert store.bad and store.bad == raster.bad
    x0, y0, x1, y1 = store.bad[0]
    assert (store.read((x0, y0, x1, y1)) == raster.slide.background).all()


def test_too_many_unreadable_pixels(tmp_path: Path) -> None:
    raster = raster_of(picture(), bad=[(500, 500, 1200, 1200)])
    with pytest.raises(TileReadError, match=r"cannot be read; expected at most 5.0% \(--max-bad-tiles\)"):
        write_store(raster, plan_of(raster), tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_tiles_that_were_not_stored_are_refused(tmp_path: Path) -> None:
    raster = raster_of(picture())
    plan = plan_of(raster)
    write_store(raster, plan, tmp_path / "a.zarr")
    store = open_store(tmp_path / "a.zarr").raster
    store.require(plan.tiles, plan.selected)
    with pytest.raises(StoreError, match="squares of 512 px that are asked for were not stored"):
        store.require(plan.tiles, np.ones_like(plan.selected))
    with pytest.raises(StoreError, match="expected"):
        store.require(TileGrid((100, 100), 64), np.ones((1, 1), bool))


def test_open_raster_takes_a_store_made_at_the_same_resolution(tmp_path: Path) -> None:
    raster = raster_of(picture())
    write_store(raster, plan_of(raster), tmp_path / "a.zarr")
    for target in (0.4, None):
        found = open_raster(tmp_path / "a.zarr", SlideSettings(), target)
        assert found.grid == raster.grid
    for settings, target in ((SlideSettings(), 0.5), (SlideSettings(mpp=0.3), 0.4)):
        with pytest.raises(StoreError, match=r"was made at 0\.4 µm/px"):
            open_raster(tmp_path / "a.zarr", settings, target)


def test_what_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "zarr.json").write_text(json.dumps({"attributes": {"multiscales": []}}))
    for name in ("empty", "text", "other", "missing"):
        assert not is_store(tmp_path / name)
        with pytest.raises(StoreError, match="not a tile store; expected a folder made by `wsipipe tile`"):
            open_store(tmp_path / name)


def test_a_lost_file_of_pixels_is_refused_not_read_as_blank(tmp_path: Path) -> None:
    raster = raster_of(picture())
    write_store(raster, plan_of(raster), tmp_path / "a.zarr")
    shards = [path for path in (tmp_path / "a.zarr" / "pixels" / "c").rglob("*") if path.is_file()]
    shards[0].unlink()
    with pytest.raises(StoreError, match=f"1 of its {len(shards)} files of pixels are missing; copy it again"):
        open_store(tmp_path / "a.zarr")


def test_another_schema(tmp_path: Path) -> None:
    raster = raster_of(picture())
    write_store(raster, plan_of(raster), tmp_path / "a.zarr")
    file = tmp_path / "a.zarr" / "zarr.json"
    content = json.loads(file.read_text())
    content["attributes"]["wsipipe"]["schema"] = 99
    file.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="schema 99 is not known here; expected 1"):
        open_store(tmp_path / "a.zarr")


def test_what_is_in_the_way_is_not_removed(tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / "thesis.txt").write_text("precious")
    raster = raster_of(picture())
    with pytest.raises(OutputError, match="something that is not a tile store is there"):
        write_store(raster, plan_of(raster), target)
    assert (target / "thesis.txt").read_text() == "precious"


def test_a_folder_that_does_not_exist_is_made(tmp_path: Path) -> None:
    raster = raster_of(picture())
    write_store(raster, plan_of(raster), tmp_path / "no" / "a.zarr")
    assert open_store(tmp_path / "no" / "a.zarr")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_store(raster, plan_of(raster), tmp_path / "file" / "a.zarr")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    raster = raster_of(picture())
    with pytest.raises(OutputError, match="Permission denied"):
        write_store(raster, plan_of(raster), tmp_path / "a.zarr")


def test_shard_must_be_whole_chunks() -> None:
    with pytest.raises(SettingsError, match="shard is 1000 px; expected a multiple of 512 px"):
        plan_of(raster_of(picture()), StoreSettings(shard=1000))


def test_plan_is_enough_to_know_the_size() -> None:
    plan = plan_of(raster_of(picture()))
    stored = {box for shard in plan.shards() for box in plan.chunks_of(*shard)}
    assert len(stored) == plan.chunks.sum()
    assert plan.raw_bytes == len(stored) * CHUNK * CHUNK * 3
    assert plan.coords().shape == (plan.selected.sum(), 2)
