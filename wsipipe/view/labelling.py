"""What the page for labelling answers to each address: page, state, pictures of cells, their slides, answers given."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from wsipipe.artifacts.plain import from_json
from wsipipe.errors import SettingsError
from wsipipe.view.closeup import CloseUps
from wsipipe.view.replies import KEEP, STEADY, answer, as_json, number
from wsipipe.view.session import Session
from wsipipe.view.slides import SlideViewers

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

ASSETS = {"label.css": "text/css", "label.js": "text/javascript", "viewer.css": "text/css"}
MOST_BYTES = 4096
"""Of what a page may send."""


@dataclass(frozen=True)
class Labelling:
    """A session, the pictures of its cells, and the slides that they lie on."""

    session: Session
    pictures: CloseUps
    viewers: SlideViewers


def routes(shown: Labelling) -> list[Any]:
    """Return the addresses that *shown* answers to, for Starlette; those of :data:`POSTS` take what is sent."""
    from starlette.routing import Mount, Route

    handlers = _Handlers(shown)
    return [
        Route("/", handlers.page),
        Route("/assets/{name:path}", handlers.asset),
        Route("/state", handlers.state),
        Route("/picture/{cell:int}.jpg", handlers.picture),
        Route("/answer", handlers.given, methods=["POST"]),
        Route("/undo", handlers.undo, methods=["POST"]),
        Route("/class", handlers.add, methods=["POST"]),
        Route("/ask", handlers.ask, methods=["POST"]),
        Mount("/slide/{number:int}", shown.viewers),
    ]


POSTS = frozenset({"/answer", "/undo", "/class", "/ask"})


class _Handlers:
    """Answers to requests. Starlette runs those that are not async in threads."""

    def __init__(self, shown: Labelling) -> None:
        self._session, self._pictures = shown.session, shown.pictures
        package = resources.files("wsipipe.view") / "assets"
        self._page = (package / "label.html").read_bytes()
        self._assets = {name: (package / name).read_bytes() for name in ASSETS}

    def page(self, request: Request) -> Response:
        return answer(self._page, "text/html", STEADY)

    def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        return answer(self._assets[name], ASSETS[name]) if name in self._assets else answer(None)

    def state(self, request: Request) -> Response:
        return as_json(self._session.state())

    def picture(self, request: Request) -> Response:
        cell, um = request.path_params["cell"], number(request.query_params.get("um", "80"))
        if um is None or cell >= len(self._session.candidates):
            return answer(None)
        session, bare = self._session, request.query_params.get("bare") == "1"
        data = self._pictures.jpeg(cell, um, session.classifier, session.classes, bare)
        return answer(data, "image/jpeg", STEADY if not bare else KEEP)

    async def given(self, request: Request) -> Response:
        return await self._done(request, lambda told: self._session.answer(int(told["cell"]), str(told["kind"])))

    async def undo(self, request: Request) -> Response:
        return await self._done(request, lambda told: self._session.undo())

    async def add(self, request: Request) -> Response:
        return await self._done(request, lambda told: self._session.add_class(str(told["name"])))

    async def ask(self, request: Request) -> Response:
        return await self._done(request, lambda told: self._session.ask(int(told["slide"]), str(told["id"])))

    async def _done(self, request: Request, act: Any) -> Response:
        """Do what was sent, in a thread, and return the state after it; or one line that says why not."""
        from starlette.concurrency import run_in_threadpool

        raw = b""
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > MOST_BYTES:
                return as_json({"error": "too long"}, 400)
        try:
            await run_in_threadpool(act, from_json(raw))
        except (SettingsError, ValueError, LookupError, TypeError) as error:
            return as_json({"error": str(error)}, 400)
        return as_json(await run_in_threadpool(self._session.state))
