"""A real Chromium for the tests of the viewer: what they open, wait for, and look at.

Needs Playwright (``pip install '.[browser]'``) and Chromium on the path, or WSIPIPE_TEST_CHROMIUM; else skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from wsipipe.view.server import listen

CHROMIUM = os.environ.get("WSIPIPE_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

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


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve *app* for the block, and yield its address."""
    import uvicorn

    with listen(0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/{TOKEN}/"
        finally:  # of a test that fails, too, or its process never ends
            server.should_exit = True
            thread.join()


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
