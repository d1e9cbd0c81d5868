"""Other networks through the pipeline: known answers, and the same cells however the slide is cut up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image
from scipy import ndimage

from tests.conftest import Phantom
from tests.plugins.networks import DARK, Dark, Hover, Labels, script
from wsipipe.errors import SettingsError
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.plugins.torchscript import TorchScript
from wsipipe.raster import open_slide_raster
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import CellSettings, GridSettings, RunSettings, SlideSettings, TissueSettings
from wsipipe.stain import is_glass

QUIET = Progress()
SAID = "mpp = 0.5\ntile = 256\ncontext = 16\nmax_diameter_um = 16.0\nmin_area_um2 = 4.0\n[options]\n"
FOREGROUND = SAID + 'output = "foreground"\n'
HOVER = SAID.replace("[options]", 'types = ["tumour", "other"]\nlicence = "CC0-1.0"\n[options]')


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return networks in files, by name."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "dark": script(Dark(), folder / "dark.pt", FOREGROUND),
        "wide": script(Dark(), folder / "wide.pt", FOREGROUND.replace("tile = 256", "tile = 320")),
        "hover": script(Hover(), folder / "hover.pt", HOVER),
        "hover-wide": script(Hover(), folder / "hover-wide.pt", HOVER.replace("tile = 256", "tile = 352")),
        "labels": script(Labels(), folder / "labels.pt", SAID + 'output = "labels"\n'),
    }


def job_of(source: Path, out: Path, model: str, block: int = 3072, workers: int = 1, **changes: Any) -> SegmentJob:
    run = RunSettings(block=block, workers=workers, device="cpu")
    job = SegmentJob(str(source), (out,), model, run=run, tissue=TissueSettings(tissue="none"))
    return dataclasses.replace(job, **changes)


def found(source: Path, out: Path, model: str, **changes: Any) -> geopandas.GeoDataFrame:
    run_segment(job_of(source, out, model, **changes), QUIET)
    return read_cells(out)


def test_finds_what_the_network_marks(phantom: Phantom, tmp_path: Path, models: dict[str, str]) -> None:
    """Each dark spot of the whole picture is one cell, with the pixels that it has there."""
    cells = found(phantom.path, tmp_path / "a.parquet", models["dark"])
    whole = picture_of(phantom.path)
    mean = ndimage.uniform_filter(whole[..., 0].astype(np.float64) / 255, 5)
    spots, _ = ndimage.label(ndimage.binary_fill_holes(mean <= DARK))
    area = np.bincount(spots.ravel())
    sides = [max(s.stop - s.start for s in box) for box in ndimage.find_objects(spots)]
    centres = np.array(ndimage.center_of_mass(spots > 0, spots, range(1, len(area))))[:, ::-1] + 0.5
    inside = np.all((centres > 40) & (centres < np.array(whole.shape[1::-1]) - 40), axis=1)
    wanted = inside & (area[1:] >= 16) & (np.array(sides) <= 32)
    assert wanted.sum() > 300
    tree = shapely.STRtree(shapely.points(cells[["x", "y"]].to_numpy()))
    spot, cell = tree.query(shapely.points(centres[wanted]), "dwithin", 1e-3)
    assert sorted(spot) == list(range(wanted.sum())) and len(set(cell)) == len(cell), "each once"
    assert not cells["oversize"].to_numpy()[cell].any()
    np.testing.assert_allclose(cells["area_um2"].to_numpy()[cell] * 4, area[1:][wanted][spot], atol=12)
    about = metadata(tmp_path / "a.parquet")
    assert about["model"]["name"] == "torchscript:dark.pt" and about["recipe"]["engine"].startswith("torchscript ")
    centre = shapely.points(cells[["x", "y"]].to_numpy())
    assert len(shapely.STRtree(centre).query(centre, "dwithin", 2.0)[0]) == len(centre), "no cell lies on another"


def picture_of(path: Path) -> Any:
    """Return the pixels of a slide at 0.5 µm/px, uint8 (h, w, 3)."""
    raster = open_slide_raster(str(path), SlideSettings(), 0.5)
    return raster.read((0, 0, *raster.grid.size))


@pytest.mark.parametrize("name", ["dark", "hover", "labels"])
def test_blocks_change_nothing(small_slide: Path, tmp_path: Path, models: dict[str, str], name: str) -> None:
    cells = found(small_slide, tmp_path / "one.parquet", models[name])
    assert len(cells) > 50
    found(small_slide, tmp_path / "many.parquet", models[name], block=256)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "many.parquet").read_bytes()


def test_cells_grow_the_same_in_any_block(small_slide: Path, tmp_path: Path, models: dict[str, str]) -> None:
    grown = CellSettings(expand_um=3)
    cells = found(small_slide, tmp_path / "one.parquet", models["dark"], cells=grown)
    assert (cells["nucleus"].area < cells.geometry.area).all()
    found(small_slide, tmp_path / "many.parquet", models["dark"], block=256, cells=grown)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "many.parquet").read_bytes()


@pytest.mark.parametrize("name", ["dark", "hover"])
def test_another_grid_changes_nothing(phantom: Phantom, tmp_path: Path, models: dict[str, str], name: str) -> None:
    """The same picture, moved under the grid of tiles, and under larger tiles, holds the same cells."""
    whole = picture_of(phantom.path)[:700, :900]
    larger = "wide" if name == "dark" else "hover-wide"
    tables = []
    for k, (dx, dy, model) in enumerate(((0, 0, name), (100, 52, name), (0, 0, larger))):
        path = tmp_path / f"{k}.png"
        Image.fromarray(whole[dy:, dx:]).save(path)
        cells = found(path, tmp_path / f"{k}.parquet", models[model], slide=SlideSettings(mpp=0.5))
        tables.append(cells_inside(cells, (dx, dy), (148, 100, 852, 652)))
    assert len(tables[0]) > 150
    np.testing.assert_allclose(tables[1], tables[0], atol=0.02, err_msg="moved by 100, 52 px")
    np.testing.assert_allclose(tables[2], tables[0], atol=0.02, err_msg="larger tiles")


def cells_inside(cells: geopandas.GeoDataFrame, moved: tuple[int, int], box: tuple[int, int, int, int]) -> Any:
    """Return centre, area, shape and probability of the cells in a box, in order; *moved* is where the picture lay."""
    names = ["x", "y", "area_um2", "eccentricity", "probability", "oversize"]
    table = cells[names].to_numpy(np.float64) + np.array([*moved, 0, 0, 0, 0])
    table = table[inside_box(table[:, :2], box)]
    return table[np.lexsort(table[:, :2].round(3).T)]


def inside_box(xy: Any, box: tuple[int, int, int, int]) -> Any:
    """Return which points lie in a box."""
    return ((xy > box[:2]) & (xy < box[2:])).all(axis=1)


def test_types_and_classes(small_slide: Path, tmp_path: Path, models: dict[str, str]) -> None:
    cells = found(small_slide, tmp_path / "a.parquet", models["hover"])
    assert set(cells["class"].dropna()) == {"tumour", "other"}
    both = cells[["probability_tumour", "probability_other"]].sum(axis=1)
    np.testing.assert_allclose(both, 1, atol=0.01)
    assert metadata(tmp_path / "a.parquet")["model"]["licence"] == "CC0-1.0"


class Stopped(Exception):
    """Somebody pulled the plug."""


class Stopping(Progress):
    """Stops a run when some cells have been made."""

    def advance(self, what: str, by: float = 1) -> None:
        if what == "cells":
            raise Stopped


def test_resumes(small_slide: Path, tmp_path: Path, models: dict[str, str]) -> None:
    found(small_slide, tmp_path / "whole.parquet", models["hover"], block=256)
    with pytest.raises(Stopped):
        run_segment(job_of(small_slide, tmp_path / "a.parquet", models["hover"], 256), Stopping())
    found(small_slide, tmp_path / "a.parquet", models["hover"], block=256)
    kept = json.loads((tmp_path / "a.run.json").read_text())["kept"]
    assert kept["predicted"] + kept["finished"] > 0
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    again = run_segment(job_of(small_slide, tmp_path / "a.parquet", models["hover"], 256), QUIET)
    assert not again.fresh


def test_other_weights_or_words_are_another_run(small_slide: Path, tmp_path: Path) -> None:
    """The digest of weights, and what the TOML file says, are part of what is asked for."""
    model = script(Dark(), tmp_path / "net.pt", FOREGROUND)
    found(small_slide, tmp_path / "a.parquet", model)
    (tmp_path / "net.toml").write_text(FOREGROUND.replace("min_area_um2 = 4.0", "min_area_um2 = 20.0"))
    result = run_segment(job_of(small_slide, tmp_path / "a.parquet", model), QUIET)
    assert result.fresh and read_cells(tmp_path / "a.parquet")["area_um2"].min() > 15
    changed = Dark()
    changed.level = 0.5
    script(changed, tmp_path / "net.pt", FOREGROUND)
    assert run_segment(job_of(small_slide, tmp_path / "a.parquet", model), QUIET).fresh


def test_bounds_leave_out_the_rest(small_slide: Path, tmp_path: Path, models: dict[str, str]) -> None:
    everything = found(small_slide, tmp_path / "all.parquet", models["hover"])
    some = found(small_slide, tmp_path / "some.parquet", models["hover"], bounds=(300, 100, 420, 300))
    inside = everything[(everything["x"].between(300, 419.999)) & (everything["y"].between(100, 299.999))]
    assert 0 < len(some) == len(inside) and set(some["cell_id"]) == set(inside["cell_id"])


def test_forwards_nothing_on_glass(tmp_path: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.full((900, 900, 3), 245, np.uint8)
    picture[40:70, 50:80] = (90, 40, 120)
    Image.fromarray(picture).save(tmp_path / "glass.png")
    seen: list[Any] = []
    real = TorchScript.objects

    def watched(self: Any, tiles: Any, levels: Any) -> Any:
        seen.extend(tiles)
        return real(self, tiles, levels)

    monkeypatch.setattr(TorchScript, "objects", watched)
    cells = found(tmp_path / "glass.png", tmp_path / "a.parquet", models["dark"], slide=SlideSettings(mpp=0.5))
    assert len(cells) == 1
    shown = [tile for tile in seen if tile.any()]
    assert len(shown) == 1 and not is_glass(shown[0]), "the other 48 tiles show glass"


def test_settings_of_own_networks_are_refused(small_slide: Path, tmp_path: Path, models: dict[str, str]) -> None:
    for changes, expected in (
        ({"cells": CellSettings(threshold=0.4)}, "--threshold is for wsipipe's own networks"),
        ({"grid": GridSettings(overlap=64)}, "--overlap 64 is for wsipipe's own networks"),
        ({"grid": GridSettings(stain="normalised")}, "does not say which colours"),
        ({"run": RunSettings(device="cpu", engine="compile")}, "--engine compile is for wsipipe's own networks"),
    ):
        with pytest.raises(SettingsError, match=expected):
            found(small_slide, tmp_path / "a.parquet", models["dark"], **changes)
    assert not (tmp_path / "a.parquet").exists()
