"""Cells corrected and a region drawn in the viewer become a set that `wsipipe fit` learns from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Phantom
from tests.masters import truth_master
from wsipipe.cli.main import main
from wsipipe.formats.parquet import read_cells
from wsipipe.labels import DatasetSpec, read_set
from wsipipe.models.checkpoint import read_card
from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.slide import open_slide
from wsipipe.view.changing import ChangingIndex
from wsipipe.view.editing import Editing
from wsipipe.view.regions import path_beside

REGION = 460, 330, 780, 620
"""In base pixels."""


def ring(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


@pytest.fixture(params=[None, (192, 128, 1216, 896)], ids=["all scanned", "part of a canvas"])
def slide(request: pytest.FixtureRequest, phantom: Phantom, tmp_path: Path) -> Phantom:
    """Return a slide in a folder of its own; QuPath counts from the corner of what was scanned."""
    (tmp_path / "set").mkdir()
    if request.param is None:
        return Phantom(Path(shutil.copy(phantom.path, tmp_path / "set")), phantom.truth)
    settings = PhantomSettings(width=1408, height=1024, seed=7, mpp=0.5, bounds=request.param)
    return Phantom(tmp_path / "set" / "phantom.scn", write_phantom(tmp_path / "set" / "phantom.scn", settings))


def test_from_the_viewer_to_a_model(slide: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_slide(slide.path) as opened:
        bounds, pixels = opened.info.bounds, opened.read_region(0, *REGION[:2], 320, 290)
    master = truth_master(tmp_path / "cells.parquet", slide, bounds=bounds and list(bounds))
    cells = read_cells(master)
    x0, y0, x1, y1 = REGION
    inside = cells[cells.x.between(x0 + 10, x1 - 10) & cells.y.between(y0 + 10, y1 - 10)]
    gone, other = inside.iloc[0], inside.iloc[-1]
    editing = Editing(ChangingIndex(master), master)
    named = [[{key: cell[key] for key in ("cell_id", "x", "y")}] for cell in (gone, other)]
    editing.do({"do": "delete", "cells": named[0]})
    editing.do({"do": "relabel", "cells": named[1], "kind": "Mitosis"})
    editing.do({"do": "region", "ring": ring(*REGION), "kind": ""})
    out = tmp_path / "set" / "phantom.geojson"
    assert main(["convert", str(master), "--regions", str(path_beside(master)), "-o", str(out)]) == 0
    assert "taken with cells.corrections.geojson (1 relabelled, 1 deleted)" in capfd.readouterr().err

    (item,) = read_set(DatasetSpec(str(tmp_path / "set")), "train")
    assert item.name == "phantom_Region 1" and (item.image == pixels).all(), "the pixels of the region"
    touching = cells[cells.x.between(x0 - 6, x1 + 6) & cells.y.between(y0 - 6, y1 + 6)]
    assert len(inside) > 20 and len(item.types) <= len(touching) - 1
    at = {cell.cell_id: item.labels[int(cell.y) - y0, int(cell.x) - x0] for cell in inside.itertuples()}
    assert at.pop(gone.cell_id) == 0 and item.types[at[other.cell_id] - 1] == "Mitosis"
    assert np.mean(np.array(list(at.values())) > 0) > 0.95 and set(item.types) >= {"Mitosis", "Dead", "Epithelial"}

    small = ["--steps", "2", "--crop", "64", "--batch", "1", "--final-share", "0", "--warmup", "1"]
    assert main(["fit", str(tmp_path / "set"), "-o", str(tmp_path / "run"), *small]) == 0
    card = read_card(tmp_path / "run" / "model.safetensors")
    assert "Mitosis" in str(card) and card.training["datasets"][0]["images"] == 1
