"""What the viewer answers to corrections and regions: steps that a page sends, and what there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wsipipe.artifacts.plain import from_json
from wsipipe.errors import WsipipeError
from wsipipe.view.editing import Editing
from wsipipe.view.replies import answer, as_json
from wsipipe.view.wanted import Wanted

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

POSTS = frozenset({"/edit", "/select"})
MOST_BYTES = 4 << 20
"""Of what a page may send."""


def routes(editing: Editing) -> list[Any]:
    """Return the addresses of *editing*, for Starlette; those of :data:`POSTS` take what is sent."""
    from starlette.routing import Route

    handlers = _Handlers(editing)
    return [
        Route("/edits", handlers.state),
        Route("/edit", handlers.edit, methods=["POST"]),
        Route("/select", handlers.select, methods=["POST"]),
        Route("/region", handlers.region),
    ]


class _Handlers:
    """Answers to requests. Starlette runs those that do not wait for a body in threads."""

    def __init__(self, editing: Editing) -> None:
        self._editing = editing

    def state(self, request: Request) -> Response:
        return as_json(self._editing.state())

    def region(self, request: Request) -> Response:
        found = self._editing.numbers(request.query_params.get("id", ""))
        return answer(None) if found is None else as_json(found)

    async def edit(self, request: Request) -> Response:
        return await _done(request, self._editing.do)

    async def select(self, request: Request) -> Response:
        def chosen(told: dict[str, Any]) -> list[dict[str, Any]]:
            hidden = told.get("hidden")
            codes = [code for code in hidden if isinstance(code, int)] if isinstance(hidden, list) else []
            return self._editing.select(told, Wanted(frozenset(codes), str(told.get("where") or "")))

        return await _done(request, chosen)


async def _done(request: Request, act: Callable[[dict[str, Any]], Any]) -> Response:
    """Do what was sent, in a thread, and return what comes of it; or one line that says why not."""
    from starlette.concurrency import run_in_threadpool

    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MOST_BYTES:
            return as_json({"error": "that is too much at a time"})
    try:
        told = from_json(raw)
        return as_json(await run_in_threadpool(act, told if isinstance(told, dict) else {}))
    except (WsipipeError, ValueError) as error:
        return as_json({"error": str(error)})
