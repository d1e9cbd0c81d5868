"""Every command that writes one file makes the folders above it; nothing is made where nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Phantom
from tests.masters import truth_master
from wsipipe.cli.main import main

SLIDE, CELLS = "{slide}", "{cells}"
NETWORK = ("--model", "{model}", "--device", "cpu", "--precision", "fp32")
BOX = ("--bounds", "0,0,256,256", "--tissue", "none")
COMMANDS: dict[str, tuple[str, ...]] = {
    "cells.geojson": ("segment", SLIDE, *BOX, *NETWORK, "-o"),
    "typed.parquet": ("classify", CELLS, "--fit", CELLS, "-o"),
    "measured.parquet": ("measure", CELLS, "--slide", SLIDE, "-o"),
    "cells.csv": ("convert", CELLS, "-o"),
    "cells.zarr": ("convert", CELLS, "-o"),
    "some.csv": ("convert", CELLS, "--min-probability", "0.6", "-o"),
    "page.html": ("report", CELLS, "--slide", SLIDE, "-o"),
    "features.h5": ("features", SLIDE, "--target-mpp", "2", *NETWORK, "-o"),
    "store.zarr": ("tile", SLIDE, "--target-mpp", "2", "-o"),
    "model.safetensors": ("models", "export", "{model}", "-o"),
    "sheet.png": ("visualize", SLIDE, "--model", "{model}", "--maps", "32", "-o"),
}


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", COMMANDS)
def test_folders_are_made(
    name: str, phantom: Phantom, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    where = {"slide": phantom.path, "cells": truth_master(tmp_path / "cells.parquet", phantom), "model": tiny_model}
    words = [word.format(**where) for word in COMMANDS[name]]
    out = tmp_path / "a" / "b" / name
    assert main([*words, str(out)]) == 0, capfd.readouterr().err
    assert out.exists()
    (tmp_path / "file").touch()
    assert main([*words, str(tmp_path / "file" / "b" / name)]) == 6
    assert "cannot write" in capfd.readouterr().err


def test_a_slide_that_is_not_there_leaves_no_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a" / "cells.csv"
    assert main(["convert", str(tmp_path / "nowhere.parquet"), "-o", str(out)]) != 0
    assert not out.parent.exists()
