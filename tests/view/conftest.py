"""A browser, and a page that fails its test on any error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.view.browsing import CHROMIUM, FLAGS


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
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
