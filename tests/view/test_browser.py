"""The viewer in a real Chromium: pan, zoom, hover, switches, link, picture.

Needs Playwright (``pip install '.[browser]'``) and Chromium on the path, or WSIPIPE_TEST_CHROMIUM; else skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import shapely

from tests.conftest import Phantom
from tests.masters import truth_master
from tests.view.browsing import PATIENCE, TOKEN, centre, coloured, eventually, needs_chromium, ready, served, shot
from wsipipe.analysis.classify import Examples
from wsipipe.analysis.classify.candidates import candidates_of
from wsipipe.settings import ClassifySettings
from wsipipe.slide import open_slide
from wsipipe.stain.unmix import HE
from wsipipe.view.answers import Shown
from wsipipe.view.areas import Area
from wsipipe.view.closeup import CloseUps
from wsipipe.view.index import CellIndex
from wsipipe.view.labelling import Labelling
from wsipipe.view.server import application
from wsipipe.view.session import Session
from wsipipe.view.slides import SlideViewers

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def address(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the phantom and its true nuclei."""
    master = truth_master(tmp_path_factory.mktemp("view") / "cells.parquet", phantom)
    areas = (Area(shapely.box(600, 400, 800, 600), "Tumor", (0, 0, 255)),)
    with open_slide(phantom.path) as slide:
        shown = Shown(slide, "phantom.tiff", CellIndex(master), (), areas, HE)
        with served(application(shown, TOKEN)) as found:
            yield found


def test_link_leads_to_a_place_and_pan_and_zoom_move_it(page: Any, address: str) -> None:
    page.goto(f"{address}#x=700&y=500&s=1")
    ready(page)
    box = page.evaluate("() => { const v = wsipipe.viewer, p = v.world.getItemAt(0).viewportToImageCoordinates("
                        "v.viewport.getCenter()); return [p.x, p.y, v.viewport.getZoom()]; }")  # fmt: skip
    assert box[:2] == pytest.approx([700, 500], abs=1)
    page.mouse.move(400, 350)
    page.mouse.down()
    page.mouse.move(300, 300, steps=5)
    page.wait_for_timeout(150)  # a slow end: no flick
    page.mouse.up()
    eventually(page, lambda: np.abs(np.subtract(centre(page), (800, 550, 1))).max() <= 12)
    assert centre(page)[2] == pytest.approx(1, rel=0.01)
    page.mouse.wheel(0, -300)
    eventually(page, lambda: centre(page)[2] < 0.9)
    page.keyboard.press("-")
    page.click("#home")
    eventually(page, lambda: centre(page)[2] > 1.2)


def test_cells_near_and_far_and_their_switches(page: Any, address: str) -> None:
    page.goto(f"{address}#x=700&y=500&s=0.5")
    ready(page)
    red = (250, 0, 0)
    eventually(page, lambda: coloured(shot(page), red) > 200)
    near = coloured(shot(page), red)
    page.locator("#classes input").nth(0).uncheck()
    eventually(page, lambda: coloured(shot(page), red) < 0.05 * near)
    assert "hide=0" in page.url
    page.locator("#classes input").nth(0).check()
    page.keyboard.press("f")
    ready(page)
    assert "filled=1" in page.url
    page.keyboard.press("c")
    eventually(page, lambda: coloured(shot(page), red) < 0.05 * near)
    page.goto("about:blank")
    page.goto(f"{address}#x=768&y=512&s=6")
    ready(page)
    eventually(page, lambda: coloured(shot(page), red) > 3)


def test_switches_pressed_at_once_leave_one_layer(page: Any, address: str) -> None:
    """Layers come later than they are asked for: of several asked for in a row the last one counts."""
    page.goto(f"{address}#x=700&y=500&s=0.5")
    ready(page)
    page.evaluate("() => ['#classes input', '#filled'].forEach((name) => document.querySelector(name).click())")
    ready(page)
    world = "Array.from({ length: wsipipe.viewer.world.getItemCount() }, (_, k) => wsipipe.viewer.world.getItemAt(k))"
    of_cells = f"{world}.filter((layer) => layer.source.areCells).length"
    assert page.evaluate(f"() => {of_cells}") == 1
    page.evaluate("() => ['#filled', '#cells-on'].forEach((name) => document.querySelector(name).click())")
    eventually(page, lambda: page.evaluate("() => !wsipipe.layers.wanted"))  # what is not shown is not loaded
    assert page.evaluate(f"() => [{of_cells}, wsipipe.layers.cells.getOpacity()]") == [1, 0]
    assert "filled" not in page.url and "cells=0" in page.url


def test_density_and_colours_of_a_measurement(page: Any, address: str) -> None:
    page.goto(f"{address}#x=768&y=512&s=2")
    ready(page)
    before = shot(page)
    page.check("#density-on")
    eventually(page, lambda: np.abs(shot(page) - before).mean() > 3)
    assert "/ mm²" in page.inner_text("#density-top")
    page.select_option("#by", "probability")
    ready(page)
    assert "by=probability" in page.url
    eventually(page, lambda: bool(page.inner_text("#by-high")))
    assert float(page.inner_text("#by-low")) < float(page.inner_text("#by-high"))


def test_stains_and_areas_are_switched(page: Any, address: str) -> None:
    page.goto(f"{address}#x=700&y=500&s=1")
    ready(page)
    page.keyboard.press("c")
    eventually(page, lambda: coloured(shot(page), (0, 225, 235)) == 0)
    both = shot(page)
    page.keyboard.press("a")
    eventually(page, lambda: not np.array_equal(shot(page), both))
    without = shot(page)
    changed = np.abs(both - without).max(axis=2) > 20
    assert 0.7 * 40_000 < changed.sum() < 1.1 * 40_000, "the area of 200 px with its outline, nothing else"
    page.keyboard.press("s")
    eventually(page, lambda: page.evaluate("() => Boolean(wsipipe.layers.stain?.getFullyLoaded())"))
    eventually(page, lambda: not np.array_equal(shot(page), without))
    assert "stain=0" in page.url and "areas=0" in page.url
    page.keyboard.press("s")
    page.keyboard.press("s")
    eventually(page, lambda: np.array_equal(shot(page), without))
    assert page.evaluate("() => wsipipe.layers.stain") is None


def test_labelling(page: Any, phantom: Phantom, tmp_path: Path) -> None:
    """A key is an answer; what was learned is kept, and taken back."""
    master = truth_master(tmp_path / "cells.parquet", phantom)
    candidates = candidates_of({"phantom": master}, ("area_um2", "probability"))
    none = Examples.none(candidates.columns)
    session = Session(candidates, none, ("Tumor", "Stroma"), ClassifySettings(), tmp_path / "types.json")
    pictures = CloseUps(candidates, lambda _: open_slide(phantom.path))
    viewers = SlideViewers(candidates.names, candidates.masters, lambda _: open_slide(phantom.path))
    with served(application(Labelling(session, pictures, viewers), TOKEN)) as address:
        page.goto(address)
        eventually(page, lambda: bool(page.evaluate("() => document.getElementById('picture').naturalWidth > 0")))
        for k in range(4):
            page.keyboard.press("12"[k % 2])
            eventually(page, lambda k=k: len(session.examples) == k + 1)
            eventually(page, lambda k=k: f"{k + 1} labelled" in page.text_content("#told"))
        assert session.examples.counts == {"Stroma": 2, "Tumor": 2} and (tmp_path / "types.json").exists()
        page.keyboard.press("u")
        eventually(page, lambda: "3 labelled" in page.text_content("#told"))
        page.fill("#name", "Lymphocyte")
        page.press("#name", "Enter")
        eventually(page, lambda: page.locator("#choices button").count() == 3)
        page.locator("#choices button").nth(2).click()
        eventually(page, lambda: session.examples.counts.get("Lymphocyte") == 1)
        page.set_viewport_size({"width": 360, "height": 700})
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
        page.goto("about:blank")  # pictures that are still on their way are not asked of a server that is gone
    pictures.close()
    viewers.close()


def test_hover_tells_and_click_keeps(page: Any, address: str, phantom: Phantom) -> None:
    x, y = next(c for c in phantom.truth.centroids((0, 0, 1536, 1024)) if 500 < c[0] < 1000 and 300 < c[1] < 700)
    page.goto(f"{address}#x={x:.0f}&y={y:.0f}&s=0.25")
    ready(page)
    page.mouse.move(450, 300)
    page.mouse.move(500, 350, steps=3)
    page.wait_for_selector("#tip:not([hidden])", timeout=PATIENCE)
    told = page.inner_text("#tip")
    assert "area" in told and "100 µm²" in told
    eventually(page, lambda: coloured(shot(page), (255, 228, 92)) > 100)  # the outline that is pointed at
    page.mouse.click(500, 350)
    page.wait_for_selector("#tip.pinned", timeout=PATIENCE)
    page.mouse.move(200, 600)
    page.wait_for_timeout(300)
    assert page.is_visible("#tip")
    page.keyboard.press("Escape")
    assert not page.is_visible("#tip")


def test_picture(page: Any, address: str, tmp_path: Path) -> None:
    page.goto(f"{address}#x=700&y=500&s=0.5")
    ready(page)
    with page.expect_download(timeout=PATIENCE) as coming:
        page.click("#shot")
    saved = tmp_path / coming.value.suggested_filename
    coming.value.save_as(saved)
    assert saved.name == "phantom_x700_y500.png"
    rgb = cv2.imread(str(saved))[..., ::-1].astype(np.int16)
    assert rgb.shape[:2] == (700, 1000) and coloured(rgb, (250, 0, 0)) > 200
    eventually(page, lambda: np.abs(rgb[60:620, 100:660] - shot(page)).mean() < 4)


def test_fits_a_phone(page: Any, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 780})
    page.goto(address)
    ready(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert not page.is_visible("#panel"), "a small window begins with the slide"
    page.click("#fold")
    panel = page.locator("#panel").bounding_box()
    assert panel["width"] == 390 and panel["height"] < 0.5 * 780
    assert page.evaluate("document.getElementById('panel').scrollWidth") <= 390
    boxes = [button.bounding_box() for button in page.locator("#tools button").all() if button.is_visible()]
    assert len(boxes) >= 6 and min(box["height"] for box in boxes) >= 44, "for a finger"
    page.click("#fold")
    assert not page.is_visible("#panel")


def test_follows_the_theme_of_the_system(page: Any, address: str) -> None:
    """Dark plates with light text in a dark system, the other way round in a light one."""
    lightness = """() => ['backgroundColor', 'color'].map((what) => {
      const [r, g, b] = getComputedStyle(document.getElementById('panel'))[what].match(/[0-9.]+/g);
      return (+r + +g + +b) / 3; })"""
    found = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(address)
        ready(page)
        found[scheme] = page.evaluate(lightness)
    assert found["light"][0] > 230 > 80 > found["light"][1]
    assert found["dark"][0] < 60 < 200 < found["dark"][1]


def test_a_report_opens_from_disk_on_a_phone_and_in_print(page: Any, phantom: Phantom, tmp_path: Path) -> None:
    from wsipipe.cli.main import main

    master = truth_master(tmp_path / "cells.parquet", phantom)
    assert main(["report", str(master), "--slide", str(phantom.path)]) == 0
    page.set_viewport_size({"width": 390, "height": 780})
    page.goto((tmp_path / "cells.report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    shown = page.evaluate("() => getComputedStyle(document.querySelector('.cells')).display")
    page.uncheck("#outlines")
    assert (
        shown != "none" and page.evaluate("() => getComputedStyle(document.querySelector('.cells')).display") == "none"
    )
    assert page.pdf(format="A4").count(b"/Type /Page\n") <= 8
