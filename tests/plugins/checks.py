"""What every adapter is held to: a known answer, and the same cells however the slide is cut up."""

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

from tests.plugins.networks import DARK
from wsipipe.formats.parquet import read_cells
from wsipipe.raster import open_slide_raster
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import RunSettings, SlideSettings, TissueSettings

QUIET = Progress()
SAID = "mpp = 0.5\ntile = 256\ncontext = 16\nmax_diameter_um = 16.0\nmin_area_um2 = 4.0\n[options]\n"
FOREGROUND = SAID + 'output = "foreground"\n'
HOVER = SAID.replace("[options]", 'types = ["tumour", "other"]\nlicence = "CC0-1.0"\n[options]')


def job_of(source: Path, out: Path, model: str, block: int = 3072, workers: int = 1, **changes: Any) -> SegmentJob:
    run = RunSettings(block=block, workers=workers, device="cpu")
    job = SegmentJob(str(source), (out,), model, run=run, tissue=TissueSettings(tissue="none"))
    return dataclasses.replace(job, **changes)


def found(source: Path, out: Path, model: str, **changes: Any) -> geopandas.GeoDataFrame:
    run_segment(job_of(source, out, model, **changes), QUIET)
    return read_cells(out)


def check_answer(cells: geopandas.GeoDataFrame, path: Path, corners: bool = False) -> None:
    """Each dark spot of the whole picture is one cell, with the pixels that it has there.

    *corners*: pixels that touch at a corner belong together.
    """
    whole = picture_of(path)
    mean = ndimage.uniform_filter(whole[..., 0].astype(np.float64) / 255, 5)
    spots, _ = ndimage.label(ndimage.binary_fill_holes(mean <= DARK), np.ones((3, 3)) if corners else None)
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
    centre = shapely.points(cells[["x", "y"]].to_numpy())
    assert len(shapely.STRtree(centre).query(centre, "dwithin", 2.0)[0]) == len(centre), "no cell lies on another"


def picture_of(path: Path) -> Any:
    """Return the pixels of a slide at 0.5 µm/px, uint8 (h, w, 3)."""
    raster = open_slide_raster(str(path), SlideSettings(), 0.5)
    return raster.read((0, 0, *raster.grid.size))


def check_blocks(path: Path, folder: Path, model: str, **changes: Any) -> geopandas.GeoDataFrame:
    """Blocks of any size give the same file, byte for byte; return its cells."""
    cells = found(path, folder / "one.parquet", model, **changes)
    assert len(cells) > 50
    found(path, folder / "many.parquet", model, block=256, **changes)
    assert (folder / "one.parquet").read_bytes() == (folder / "many.parquet").read_bytes()
    return cells


def check_grids(slide: Path, folder: Path, model: str, larger: str, atol: float = 0.02) -> None:
    """The same picture, moved under the grid of tiles, and under larger tiles, holds the same cells."""
    whole = picture_of(slide)[:700, :900]
    tables = []
    for k, (dx, dy, one) in enumerate(((0, 0, model), (100, 52, model), (0, 0, larger))):
        path = folder / f"{k}.png"
        Image.fromarray(whole[dy:, dx:]).save(path)
        cells = found(path, folder / f"{k}.parquet", one, slide=SlideSettings(mpp=0.5))
        tables.append(cells_inside(cells, (dx, dy), (148, 100, 852, 652)))
    assert len(tables[0]) > 150
    np.testing.assert_allclose(tables[1], tables[0], atol=atol, err_msg="moved by 100, 52 px")
    np.testing.assert_allclose(tables[2], tables[0], atol=atol, err_msg="larger tiles")


def cells_inside(cells: geopandas.GeoDataFrame, moved: tuple[int, int], box: tuple[int, int, int, int]) -> Any:
    """Return centre, area, shape and probability of the cells in a box, in order; *moved* is where the picture lay."""
    names = ["x", "y", "area_um2", "eccentricity", "probability", "oversize"]
    table = cells[names].to_numpy(np.float64) + np.array([*moved, 0, 0, 0, 0])
    table = table[inside_box(table[:, :2], box)]
    return table[np.lexsort(table[:, :2].round(3).T)]


def inside_box(xy: Any, box: tuple[int, int, int, int]) -> Any:
    """Return which points lie in a box."""
    return ((xy > box[:2]) & (xy < box[2:])).all(axis=1)


class Stopped(Exception):
    """Somebody pulled the plug."""


class Stopping(Progress):
    """Stops a run when some cells have been made."""

    def advance(self, what: str, by: float = 1) -> None:
        if what == "cells":
            raise Stopped


def check_resumes(slide: Path, folder: Path, model: str) -> None:
    """A run that was stopped goes on, and ends with the same file; a finished one is not made again."""
    found(slide, folder / "whole.parquet", model, block=256)
    with pytest.raises(Stopped):
        run_segment(job_of(slide, folder / "a.parquet", model, 256), Stopping())
    found(slide, folder / "a.parquet", model, block=256)
    kept = json.loads((folder / "a.run.json").read_text())["kept"]
    assert kept["predicted"] + kept["finished"] > 0
    assert (folder / "a.parquet").read_bytes() == (folder / "whole.parquet").read_bytes()
    again = run_segment(job_of(slide, folder / "a.parquet", model, 256), QUIET)
    assert not again.fresh
