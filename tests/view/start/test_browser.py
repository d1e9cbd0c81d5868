"""The start page in a real Chromium: choose, set, start, watch, stop, go on; on a phone and in the dark.

Needs Playwright (``pip install '.[browser]'``) and Chromium on the path, or WSIPIPE_TEST_CHROMIUM; else skipped.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.view.start.test_start import ALL, CHILD, TOKEN
from wsipipe.pipelines.app import models, show
from wsipipe.segmentation.slides import SLIDE_SUFFIXES
from wsipipe.view.server import listen
from wsipipe.view.start.desk import Desk
from wsipipe.view.start.folders import Folders
from wsipipe.view.start.pages import Office, application

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("WSIPIPE_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PATIENCE = 120_000


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path / "results", (sys.executable, "-c", CHILD))
    yield found
    found.close()


@pytest.fixture
def address(desk: Desk, tmp_path: Path) -> Iterator[str]:
    import uvicorn

    slides = tmp_path / "slides"
    (slides / "older").mkdir(parents=True)
    for name in ("one.svs", "two <b>.tiff", "older/three.svs"):
        (slides / name).write_bytes(b"12345")
    office = Office(Folders((slides,), SLIDE_SUFFIXES), desk, ALL, models(), show)
    with listen(0) as listener:
        server = uvicorn.Server(uvicorn.Config(application(office, TOKEN), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/{TOKEN}/"
        server.should_exit = True
        thread.join()


@pytest.fixture
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


def opened(browser: Any, address: str, complaints: list[str], width: int = 1100, scheme: str = "light") -> Any:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" and "400" not in m.text else None)
    page.goto(address)
    page.wait_for_selector("#entries .item")
    return page


def test_from_slides_to_a_run(browser: Any, address: str, desk: Desk) -> None:
    complaints: list[str] = []
    page = opened(browser, address, complaints)
    page.click("#start")
    page.locator("#problem", has_text="folder").wait_for()

    page.get_by_label("two <b>.tiff").check()
    page.get_by_role("button", name="older").click()
    page.locator("#crumbs", has_text="older").wait_for()
    page.get_by_label("three.svs").check()
    assert page.locator("#list li").all_inner_texts() == ["two <b>.tiff×", "three.svs×"]
    page.fill("#cells-threshold", "7")
    page.fill("#name", "wait here")
    page.click("#start")
    page.locator("#problem", has_text="threshold is 7").wait_for()
    page.fill("#cells-threshold", "0,4")
    page.check("#cells-drop_oversize")
    page.click("#start")

    run = page.locator("[data-run='wait here']")
    run.get_by_text("3 of 8").wait_for()
    assert run.locator(".state").inner_text() == "running" and page.locator("#problem").is_hidden()
    config = tomllib.loads((desk.results / "wait here/run.toml").read_text(encoding="utf-8"))
    assert config == {"cells": {"threshold": 0.4, "drop_oversize": True}}
    table = (desk.results / "wait here/slides.csv").read_text(encoding="utf-8").splitlines()
    assert [Path(line).name for line in table[1:]] == ["two <b>.tiff", "three.svs"]
    run.get_by_role("button", name="Stop").click()
    run.get_by_role("button", name="Go on").wait_for()
    run.get_by_text("What it says").click()
    assert "a warning" in run.locator("pre").inner_text()
    assert not complaints


def test_on_a_phone_and_in_the_dark(browser: Any, address: str) -> None:
    complaints: list[str] = []
    light = opened(browser, address, complaints)
    dark = opened(browser, address, complaints, width=390, scheme="dark")
    wide = "document.documentElement.scrollWidth <= window.innerWidth"
    assert dark.evaluate(wide) and light.evaluate(wide)
    paper = "getComputedStyle(document.body).backgroundColor"
    assert (
        sum(map(int, dark.evaluate(paper)[4:-1].split(",")))
        < 150
        < sum(map(int, light.evaluate(paper)[4:-1].split(",")))
    )
    boxes = dark.locator("main > section").evaluate_all("all => all.map((s) => s.getBoundingClientRect().width)")
    assert min(boxes) > 340, "one column, as wide as the phone"
    assert not complaints
