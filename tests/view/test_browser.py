"""The viewer in a real Chromium: pan, zoom, hover, switches, link, picture.

Needs Playwright (``pip install '.[browser]'``) and Chromium on the path, or WSIPIPE_TEST_CHROMIUM; else skipped.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from tests.conftest import Phantom
from tests.masters import truth_master
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
from wsipipe.view.server import application, listen
from wsipipe.view.session import Session

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("WSIPIPE_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

TOKEN = "browser-test"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
READY = """() => { const w = globalThis.wsipipe; if (!w?.layers.cells || w.layers.wanted) return false;
  const items = [...Array(w.viewer.world.getItemCount()).keys()].map((i) => w.viewer.world.getItemAt(i));
  return items.every((item) => item.getFullyLoaded()) && !w.viewer.isAnimating?.(); }"""
PATIENCE = 60_000


@pytest.fixture(scope="module")
def address(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the phantom and its true nuclei."""
    import uvicorn

    master = truth_master(tmp_path_factory.mktemp("view") / "cells.parquet", phantom)
    with open_slide(phantom.path) as slide, listen(0) as listener:
        areas = (Area(shapely.box(600, 400, 800, 600), "Tumor", (0, 0, 255)),)
        app = application(Shown(slide, "phantom.tiff", CellIndex(master), (), areas, HE), TOKEN)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/{TOKEN}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """Open a page that fails the test on any error of a script, refused request, or call to another place."""
    context = browser.new_context(viewport={"width": 1000, "height": 700}, accept_downloads=True)
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.on("response", lambda answer: faults.append(answer.url) if answer.status >= 400 else None)
    page.on(
        "request",
        lambda call: (
            None if "127.0.0.1" in call.url or call.url[:5] in ("data:", "blob:", "file:") else faults.append(call.url)
        ),
    )
    yield page
    context.close()
    assert not faults


def ready(page: Any) -> None:
    """Wait until everything in sight is drawn (the page's own rules forbid Playwright's wait_for_function)."""
    for _ in range(PATIENCE // 100):
        if page.evaluate(READY):
            return
        page.wait_for_timeout(100)
    raise AssertionError("the viewer did not get ready")


def shot(page: Any) -> NDArray[np.int16]:
    """Return the picture of the middle of the page, free of panels."""
    data = page.screenshot(clip={"x": 100, "y": 60, "width": 560, "height": 560})
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(np.int16)


def eventually(page: Any, what: Callable[[], bool]) -> None:
    """Wait until *what* holds: how long a browser takes to draw or to glide is its own matter."""
    for _ in range(PATIENCE // 100):
        if what():
            return
        page.wait_for_timeout(100)
    assert what()


def coloured(picture: NDArray[np.int16], rgb: tuple[int, int, int]) -> int:
    """Return how many pixels have about this colour."""
    return int((np.abs(picture - rgb) < 60).all(axis=-1).sum())


def centre(page: Any) -> tuple[float, float, float]:
    """Return the position in the page's link: x, y and base pixels per screen pixel."""
    told = dict(part.split("=") for part in page.url.partition("#")[2].split("&"))
    return float(told["x"]), float(told["y"]), float(told["s"])


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
    import uvicorn

    master = truth_master(tmp_path / "cells.parquet", phantom)
    candidates = candidates_of({"phantom": master}, ("area_um2", "probability"))
    none = Examples.none(candidates.columns)
    session = Session(candidates, none, ("Tumor", "Stroma"), ClassifySettings(), tmp_path / "types.json")
    pictures = CloseUps(candidates, lambda _: open_slide(phantom.path))
    with listen(0) as listener:
        app = application(Labelling(session, pictures), TOKEN)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        page.goto(f"http://127.0.0.1:{listener.getsockname()[1]}/{TOKEN}/")
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
        server.should_exit = True
        thread.join()
    pictures.close()


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
    page.click("#fold")
    assert not page.is_visible("#panel")


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
