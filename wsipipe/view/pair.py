"""Two results of one slide side by side: a page with two viewers, each with its own addresses."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from wsipipe.view import answers, edits
from wsipipe.view.answers import Shown
from wsipipe.view.replies import STEADY, answer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

ASSETS = {"pair.css": "text/css", "pair.js": "text/javascript"}
SIDES = ("one", "two")
POSTS = frozenset(f"/{side}{path}" for side in SIDES for path in edits.POSTS)
"""Addresses that take what is sent."""


@dataclass(frozen=True)
class Pair:
    """What is shown on the left, and on the right."""

    left: Shown
    right: Shown


def routes(pair: Pair) -> list[Any]:
    """Return the addresses that *pair* answers to, for Starlette."""
    from starlette.routing import Mount, Route

    package = resources.files("wsipipe.view") / "assets"
    page = (package / "pair.html").read_bytes()
    assets = {name: (package / name).read_bytes() for name in ASSETS}

    def asset(request: Request) -> Response:
        name = request.path_params["name"]
        return answer(assets[name], ASSETS[name]) if name in assets else answer(None)

    return [
        Route("/", lambda request: answer(page, "text/html", STEADY)),
        Route("/assets/{name}", asset),
        *(Mount(f"/{side}", routes=answers.routes(shown)) for side, shown in zip(SIDES, (pair.left, pair.right))),
    ]
