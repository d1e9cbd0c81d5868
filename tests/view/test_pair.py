"""Two results side by side: each is served apart, and in a real Chromium they move together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.conftest import Phantom
from tests.masters import truth_master, write_master
from tests.view.browsing import TOKEN, eventually, needs_chromium, served
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


@needs_chromium
def test_where_one_goes_the_other_follows(page: Any, app: Any) -> None:
    place = """(k) => { const v = globalThis.pair?.sides[k].contentWindow.wsipipe?.viewer, item = v?.world.getItemAt(0);
      if (!item) return [0, 0, 0]; const c = item.viewportToImageCoordinates(v.viewport.getCenter());
      return [c.x, c.y, item.viewportToImageZoom(v.viewport.getZoom())]; }"""

    def same(x: float, y: float) -> bool:
        left, right = (page.evaluate(place, k) for k in (0, 1))
        return bool(np.allclose(left, right, atol=1.5, rtol=0.01)) and abs(left[0] - x) < 15 and abs(left[1] - y) < 15

    with served(app) as address:
        page.goto(f"{address}#x=700&y=500&s=1", wait_until="commit")  # tiles of two viewers hold "load" back
        eventually(page, lambda: same(700, 500))
        page.mouse.move(250, 350)
        page.mouse.down()
        page.mouse.move(150, 300, steps=5)
        page.wait_for_timeout(150)
        page.mouse.up()
        eventually(page, lambda: same(800, 550))
        page.mouse.move(750, 350)
        page.mouse.down()
        page.mouse.move(850, 350, steps=5)
        page.wait_for_timeout(150)
        page.mouse.up()
        eventually(page, lambda: same(700, 550))
        zoom = page.evaluate(place, 0)[2]
        page.mouse.wheel(0, -300)
        eventually(page, lambda: page.evaluate(place, 0)[2] > 1.1 * zoom)
        eventually(page, lambda: np.allclose(page.evaluate(place, 0), page.evaluate(place, 1), atol=1.5, rtol=0.01))
        page.set_viewport_size({"width": 390, "height": 780})
        boxes = [page.locator(f"#{side}").bounding_box() for side in ("left", "right")]
        assert boxes[0]["width"] == 390 and boxes[1]["y"] > 380, "one above the other in a narrow window"
        page.goto("about:blank")
