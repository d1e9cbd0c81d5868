"""`wsipipe.show`: a slide and its cells in a notebook, in one piece, and in a real Chromium."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image

import wsipipe
from tests.conftest import Phantom
from tests.masters import truth_master
from wsipipe.errors import SettingsError
from wsipipe.formats.parquet import read_cells
from wsipipe.slide import open_slide
from wsipipe.view.notebook import show as module

CHROMIUM = os.environ.get("WSIPIPE_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def master(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return truth_master(tmp_path_factory.mktemp("show") / "cells.parquet", phantom)


def data(shown: module.Shown) -> Any:
    found = re.search(r"const DATA = (\{.*\}), STEPS = 4;", shown._page)
    assert found is not None
    return json.loads(found[1])


def test_all_of_a_slide(phantom: Phantom, master: Path) -> None:
    shown = wsipipe.show(phantom.path, master)
    told, cells = data(shown), read_cells(master)
    assert told["box"] == [0, 0, 1536, 1024] and told["mpp"] == 0.5 and len(told["cells"]) == len(cells)
    picture = Image.open(io.BytesIO(base64.b64decode(told["picture"].partition(",")[2])))
    assert picture.size == (1536, 1024)
    flat, colour, tip = told["cells"][3]
    outline = np.array(flat).reshape(-1, 2) / 4
    assert np.allclose([*outline.min(axis=0), *outline.max(axis=0)], cells.geometry.iloc[3].bounds, atol=0.13)
    assert re.fullmatch("#[0-9a-f]{6}", colour) and tip[told["columns"].index("area_um2")] == "100"
    assert sum(int(name.split(": ")[1]) for name, _ in told["legend"]) == len(cells)
    html = shown._repr_html_()
    assert (
        html.startswith("<iframe srcdoc=")
        and "<script" not in html
        and "http" not in html.replace("https", "http")[:200]
    )
    assert not re.search(r"(src|href)=[\"']?https?:", shown._page), "nothing is loaded from elsewhere"


def test_a_part_by_a_measurement(phantom: Phantom, master: Path) -> None:
    cells = read_cells(master)
    cells["size"] = np.arange(len(cells), dtype=np.float64)
    told = data(wsipipe.show(phantom.path, cells, box=(256, 128, 768, 640), by="size"))
    assert told["box"] == [256, 128, 768, 640]
    assert len(told["cells"]) == int(shapely.box(256, 128, 768, 640).intersects(cells.geometry).sum())
    assert len({colour for _, colour, _ in told["cells"]}) > 5 and told["legend"][0][0].startswith("size ")
    assert "size" in told["columns"]
    with open_slide(phantom.path) as slide:
        assert data(wsipipe.show(slide))["cells"] == []
        slide.read_region(0, 0, 0, 8, 8)  # it is still open


def test_many_cells_are_dots(phantom: Phantom, master: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OUTLINES", 10)
    told = data(wsipipe.show(phantom.path, master))
    assert told["dots"] and all(len(flat) == 2 for flat, _, _ in told["cells"])


def test_names_cannot_break_the_page(phantom: Phantom) -> None:
    frame = geopandas.GeoDataFrame({"class": ["</script><b>"]}, geometry=[shapely.box(1, 1, 9, 9)])
    shown = wsipipe.show(phantom.path, frame)
    assert "</script><b>" not in shown._page and data(shown)["cells"][0][2] == ["</script><b>"]


def test_refusals(phantom: Phantom, master: Path) -> None:
    with pytest.raises(SettingsError, match="expected a part of the slide's 1536 x 1024 px"):
        wsipipe.show(phantom.path, box=(5000, 0, 6000, 100))
    with pytest.raises(SettingsError, match="there is no column 'colour'; expected class, or one of"):
        wsipipe.show(phantom.path, master, by="colour")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser(phantom: Phantom, master: Path, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    wsipipe.show(phantom.path, master).save(tmp_path / "shown.html")
    told = data(wsipipe.show(phantom.path, master))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page, complaints = browser.new_page(viewport={"width": 900, "height": 560}), []
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((tmp_path / "shown.html").as_uri())
        page.wait_for_function("document.querySelector('#scale span').textContent.includes('µm')")
        before = page.evaluate("wsipipe.state()")
        x, y = (np.array(told["cells"][5][0]).reshape(-1, 2) / 4).mean(axis=0) * before["scale"]
        page.mouse.move(before["left"] + x, before["top"] + y)
        page.wait_for_selector("#tip:not([hidden])")
        assert "area_um2: 100" in page.inner_text("#tip")
        page.mouse.wheel(0, -600)
        page.wait_for_function(f"wsipipe.state().scale > {before['scale'] * 2}")
        page.click("#all")
        page.wait_for_function(f"Math.abs(wsipipe.state().scale - {before['scale']}) < 1e-6")
        browser.close()
    assert not complaints
