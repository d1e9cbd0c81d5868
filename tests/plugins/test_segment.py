"""Other networks through the pipeline: known answers, and the same cells however the slide is cut up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Phantom
from tests.plugins.checks import (
    FOREGROUND,
    HOVER,
    QUIET,
    SAID,
    check_answer,
    check_blocks,
    check_grids,
    check_resumes,
    found,
    job_of,
)
from tests.plugins.networks import Dark, Hover, Labels, script
from wsipipe.errors import SettingsError
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.plugins.torchscript import TorchScript
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import CellSettings, GridSettings, RunSettings, SlideSettings
from wsipipe.stain import is_glass


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


def test_finds_what_the_network_marks(phantom: Phantom, tmp_path: Path, models: dict[str, str]) -> None:
    check_answer(found(phantom.path, tmp_path / "a.parquet", models["dark"]), phantom.path)
    about = metadata(tmp_path / "a.parquet")
    assert about["model"]["name"] == "torchscript:dark.pt" and about["recipe"]["engine"].startswith("torchscript ")


@pytest.mark.parametrize("name", ["dark", "hover", "labels"])
def test_blocks_change_nothing(small_slide: Path, tmp_path: Path, models: dict[str, str], name: str) -> None:
    check_blocks(small_slide, tmp_path, models[name])


def test_two_processes_change_nothing(small_slide: Path, tmp_path: Path, models: dict[str, str]) -> None:
    cells = found(small_slide, tmp_path / "one.parquet", models["hover"])
    assert len(cells) > 50
    found(small_slide, tmp_path / "two.parquet", models["hover"], block=256, workers=2)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


@pytest.mark.parametrize("name", ["dark", "hover"])
def test_another_grid_changes_nothing(phantom: Phantom, tmp_path: Path, models: dict[str, str], name: str) -> None:
    larger = "wide" if name == "dark" else "hover-wide"
    check_grids(phantom.path, tmp_path, models[name], models[larger])


def test_resumes(small_slide: Path, tmp_path: Path, models: dict[str, str]) -> None:
    check_resumes(small_slide, tmp_path, models["hover"])


def test_cells_grow_the_same_in_any_block(small_slide: Path, tmp_path: Path, models: dict[str, str]) -> None:
    grown = CellSettings(expand_um=3)
    cells = found(small_slide, tmp_path / "one.parquet", models["dark"], cells=grown)
    assert (cells["nucleus"].area < cells.geometry.area).all()
    found(small_slide, tmp_path / "many.parquet", models["dark"], block=256, cells=grown)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "many.parquet").read_bytes()


def test_types_and_classes(small_slide: Path, tmp_path: Path, models: dict[str, str]) -> None:
    cells = found(small_slide, tmp_path / "a.parquet", models["hover"])
    assert set(cells["class"].dropna()) == {"tumour", "other"}
    both = cells[["probability_tumour", "probability_other"]].sum(axis=1)
    np.testing.assert_allclose(both, 1, atol=0.01)
    assert metadata(tmp_path / "a.parquet")["model"]["licence"] == "CC0-1.0"


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
