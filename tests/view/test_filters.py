"""Filters of the viewer: histograms and counts of the server, sliders and boxes in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.conftest import Phantom
from tests.masters import write_master
from tests.view.browsing import TOKEN, coloured, eventually, needs_chromium, ready, served, shot
from wsipipe.formats.parquet import read_cells
from wsipipe.slide import open_slide
from wsipipe.view.answers import Shown
from wsipipe.view.index import BARS, CellIndex
from wsipipe.view.server import application
from wsipipe.view.wanted import Wanted

N = 900
RNG = np.random.default_rng(4)
XY = RNG.uniform((20, 20), (1516, 1004), (N, 2))
MEASURES = {"area_um2": np.where(np.arange(N) == 3, np.nan, RNG.gamma(9, 8, N)), "quality": np.arange(N) % 7.0}


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filters") / "cells.parquet"
    return write_master(path, XY, np.arange(N) % 3 - 1, 6.0, MEASURES, size=[1536, 1024])


@pytest.fixture(scope="module")
def app(master: Path, phantom: Phantom) -> Iterator[Any]:
    with open_slide(phantom.path) as slide:
        yield application(Shown(slide, "phantom.tiff", CellIndex(master)), TOKEN)


def test_histograms_and_counts(app: Any, master: Path) -> None:
    client, cells = TestClient(app, base_url=f"http://127.0.0.1/{TOKEN}/"), read_cells(master)
    found = client.get("histogram", params={"of": "area_um2"}).json()
    area = cells["area_um2"].to_numpy()
    ends = np.nanquantile(area, (0.001, 0.999))
    assert (found["low"], found["high"]) == pytest.approx(ends, rel=1e-5)
    assert len(found["bars"]) == BARS and sum(found["bars"]) == N - 1 and found["without"] == 1
    count = lambda **asked: client.get("count", params=asked).json()  # noqa: E731
    assert count() == {"cells": N, "of": N}
    assert count(where="area_um2>=60", hide="0")["cells"] == ((area >= 60) & (cells["class"] != "Dead")).sum()
    assert count(where="quality=fine")["cells"] == (cells["quality"] == 0).sum()
    assert "no column 'size'" in count(where="size>3")["error"]
    assert client.get("info").json()["filters"][:2] == ["class_probability", "probability"]
    for refused in ("histogram?of=geometry", "histogram", "cells/5/0_0?where=size>3", "density.png?where=3"):
        assert client.get(refused).status_code == 404, refused


def test_windows_show_what_meets_the_conditions(master: Path) -> None:
    index, cells = CellIndex(master), read_cells(master)
    wanted = Wanted(frozenset({1}), "area_um2<=70, probability>=0.6")
    kept = (cells["area_um2"] <= 70) & (cells["probability"] >= 0.6) & (cells["class"] != "Epithelial")
    whole = (0.0, 0.0, 1536.0, 1024.0)
    assert len(index.dots(whole, wanted).codes) == len(index.outlines(whole, wanted).codes) == kept.sum()
    assert index.counts(64, wanted).sum() == index.count(wanted) == kept.sum()
    lost = cells[cells["area_um2"] > 90].iloc[0]
    assert index.at(lost.x, lost.y, Wanted(where="area_um2<=10")) is None


@needs_chromium
def test_sliders_boxes_and_words(page: Any, app: Any, master: Path) -> None:
    cells = read_cells(master)
    with served(app) as address:
        page.goto(f"{address}#x=700&y=500&s=0.5")
        ready(page)
        red = (250, 0, 0)
        eventually(page, lambda: coloured(shot(page), red) > 200)
        before = coloured(shot(page), red)
        page.locator("#filters summary").click()
        page.select_option("#filter-add", "area_um2")
        low = page.locator(".filter[data-column=area_um2] input").nth(0)
        eventually(page, lambda: page.locator(".filter rect.in").count() == BARS)
        low.evaluate("(end) => { end.value = 500; end.dispatchEvent(new Event('input')); }")
        eventually(page, lambda: "of 900 cells" in page.inner_text("#where-told"))
        text = page.input_value("#where")
        assert text.startswith("area_um2>=")
        kept = int((cells["area_um2"] >= float(text.partition(">=")[2])).sum())
        eventually(page, lambda: page.inner_text("#where-told") == f"{kept} of 900 cells")
        assert 0 < kept < 300 and page.locator(".filter rect.in").count() == BARS // 2
        ready(page)
        eventually(page, lambda: coloured(shot(page), red) < 0.7 * before)
        page.reload()
        ready(page)
        assert page.input_value("#where") == text, "the link holds it"
        page.select_option("#filter-add", "quality")
        page.locator(".filter[data-column=quality] label", has_text="glass").click()
        eventually(page, lambda: "quality=fine|out of focus" in page.input_value("#where"))
        page.fill("#where", "area_um2<=1, oversize=no")
        page.press("#where", "Enter")
        eventually(page, lambda: page.inner_text("#where-told") == "0 of 900 cells")
        assert page.locator(".filter").count() == 2 and page.locator(".filter[data-column=oversize]").count() == 1
        eventually(page, lambda: coloured(shot(page), red) == 0)
        page.fill("#where", "size>=3")
        page.press("#where", "Enter")
        eventually(page, lambda: "no column 'size'" in page.inner_text("#where-told"))
        page.fill("#where", "")
        page.press("#where", "Enter")
        eventually(page, lambda: page.inner_text("#where-told") == "900 of 900 cells")
        ready(page)
        eventually(page, lambda: coloured(shot(page), red) > 0.9 * before)
        page.goto("about:blank")
