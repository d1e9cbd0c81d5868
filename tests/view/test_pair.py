"""Two results side by side: each is served apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.conftest import Phantom
from tests.masters import truth_master, write_master
from tests.view.browsing import TOKEN
from wsipipe.cli.main import main
from wsipipe.formats.corrections import path_beside
from wsipipe.slide import open_slide
from wsipipe.view.answers import Shown
from wsipipe.view.changing import ChangingIndex
from wsipipe.view.editing import Editing
from wsipipe.view.pair import Pair
from wsipipe.view.server import application


@pytest.fixture
def masters(phantom: Phantom, tmp_path: Path) -> tuple[Path, Path]:
    xy = np.random.default_rng(1).uniform((20, 20), (1500, 1000), (90, 2))
    return (
        truth_master(tmp_path / "a.parquet", phantom),
        write_master(tmp_path / "b.parquet", xy, 0, 6.0, size=[1536, 1024]),
    )


@pytest.fixture
def app(phantom: Phantom, masters: tuple[Path, Path]) -> Iterator[Any]:
    indices = [ChangingIndex(master) for master in masters]
    with open_slide(phantom.path) as slide:
        left, right = (
            Shown(slide, master.name, index, editing=Editing(index, master))
            for index, master in zip(indices, masters, strict=True)
        )
        yield application(Pair(left, right), TOKEN)


def test_each_side_has_its_own_addresses(app: Any, masters: tuple[Path, Path]) -> None:
    client = TestClient(app, base_url=f"http://127.0.0.1/{TOKEN}/")
    page = client.get("")
    assert "iframe" in page.text and "frame-ancestors 'self'" in page.headers["content-security-policy"]
    assert client.get("one/info").json()["name"] == "a.parquet" and client.get("two/info").json()["cells"] == 90
    assert client.get("one/assets/viewer.js").status_code == client.get("assets/pair.js").status_code == 200
    for path in ("three/info", "info", "one/../../etc", "assets/viewer.js"):
        assert client.get(path).status_code == 404, path
    cell = client.get("two/cell", params={"x": 0, "y": 0}).json()
    assert cell is None
    x, y = map(float, ChangingIndex(masters[1])._xy[0])
    cell = client.get("two/cell", params={"x": x, "y": y}).json()
    step = {"do": "delete", "cells": [cell]}
    assert client.post("two/edit", json=step).json()["cells"] == 89
    assert path_beside(masters[1]).exists() and not path_beside(masters[0]).exists()
    assert client.get("one/info").json()["cells"] == ChangingIndex(masters[0]).cells


def test_beside_goes_with_cells(
    phantom: Phantom, masters: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", str(phantom.path), "--beside", str(masters[0]), "--no-browser"]) == 2
    assert "goes with CELLS" in capfd.readouterr().err
