"""What the start page answers to each address, and its server: for one browser on this machine, behind a token."""

from __future__ import annotations

import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsipipe.artifacts.plain import from_json
from wsipipe.errors import MissingDependency, SettingsError, WsipipeError
from wsipipe.view.answers import Shown, routes
from wsipipe.view.server import run
from wsipipe.view.start.choices import Sections, choices, settings_file
from wsipipe.view.start.desk import MARKERS, Desk
from wsipipe.view.start.folders import Folders
from wsipipe.view.start.guard import Guard, answer, nothing
from wsipipe.view.start.told import as_json, told

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

MOST_BYTES = 1 << 20
"""Of what a browser may send."""
OPEN = 3
"""Slides that are kept open to be looked at."""
ASSETS = {"start.css": "text/css", "start.js": "text/javascript"}

Opener = Callable[[str, Path], Shown]
"""Opens a slide and its cells."""


@dataclass(frozen=True)
class Office:
    """What the page works with.

    Attributes
    ----------
    models : mapping
        Name of each model, and what is said of it.
    """

    folders: Folders
    desk: Desk
    sections: Sections
    models: Mapping[str, str]
    open: Opener


def application(office: Office, token: str) -> ASGIApp:
    """Return the server of the start page, all of whose addresses begin with *token*.

    Raises
    ------
    MissingDependency
        When Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Mount, Route
    except ImportError as error:
        raise MissingDependency.of("starlette", "view", "wsipipe app") from error
    answers = _Answers(office)
    found = [
        Route("/", answers.page),
        Route("/assets/{name}", answers.asset),
        Route("/choices", answers.choices),
        Route("/folder", answers.folder),
        Route("/find", answers.find),
        Route("/runs", answers.runs),
        Route("/runs", answers.start, methods=["POST"]),
        Route("/runs/{name}/{action}", answers.act, methods=["POST"]),
        Route("/runs/{name}/report", answers.report),
        Route("/runs/{name}/{page}.report.html", answers.page_of_slide),
        Route("/runs/{name}/score/{number:int}", answers.score),
        Mount("/look/{name}/{number:int}", _Looking(office)),
    ]
    return Guard(Starlette(routes=found), token)


def serve(office: Office, listener: socket.socket, token: str, started: Callable[[str], None]) -> None:
    """Serve until interrupted; *started* hears the address once the server answers.

    Raises
    ------
    MissingDependency
        When uvicorn is not installed.
    """
    run(application(office, token), "wsipipe app", listener, token, started)


class _Answers:
    """Answers to requests. Starlette runs those that do not wait for a body in threads."""

    def __init__(self, office: Office) -> None:
        self._office = office
        package = resources.files("wsipipe.view") / "assets"
        self._page = (package / "start.html").read_bytes()
        self._assets = {name: (package / name).read_bytes() for name in ASSETS}

    def page(self, request: Request) -> Response:
        return answer(self._page, "text/html")

    def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        return answer(self._assets[name], ASSETS[name]) if name in self._assets else nothing()

    def choices(self, request: Request) -> Response:
        office = self._office
        models = [{"name": name, "about": about} for name, about in office.models.items()]
        roots = [str(root) for root in office.folders.roots]
        told_ = {"models": models, "sections": choices(office.sections), "roots": roots, "markers": MARKERS}
        return _json(told_ | {"results": str(office.desk.results)})

    def folder(self, request: Request) -> Response:
        return _tried(lambda: self._office.folders.listing(request.query_params.get("path", "")))

    def find(self, request: Request) -> Response:
        name, size = request.query_params.get("name", ""), request.query_params.get("size", "")
        safe = size.isascii() and size.isdigit() and len(size) < 16 and not set(name) & set("/\\\0")
        return _json({"path": self._office.folders.find(name, int(size)) if safe else None})

    def runs(self, request: Request) -> Response:
        desk = self._office.desk
        return _json([told(desk, run) for run in reversed(desk.runs.values())])

    async def start(self, request: Request) -> Response:
        given = await _body(request)
        return await _apart(lambda: self._start(given))

    def _start(self, given: Mapping[str, Any]) -> dict[str, Any]:
        office, slides = self._office, given.get("slides")
        if not isinstance(slides, list) or not all(isinstance(slide, str) for slide in slides):
            raise SettingsError("no slide is chosen; choose some, or a folder")
        paths = [str(office.folders.inside(slide)) for slide in slides]
        model, name, settings = given.get("model"), given.get("name"), given.get("settings", {})
        if model not in office.models:
            raise SettingsError(f"no model {model!r}; expected one of {', '.join(office.models)}")
        if not isinstance(settings, dict) or not isinstance(name, str):
            raise SettingsError("a run needs a name, and its settings by section")
        run = office.desk.start(name.strip(), paths, str(model), settings_file(settings, office.sections))
        return {"name": run.name}

    async def act(self, request: Request) -> Response:
        given, at = await _body(request), request.path_params
        desk = self._office.desk
        actions: dict[str, Callable[[], None]] = {
            "again": lambda: desk.again(at["name"]),
            "stop": lambda: desk.stop(at["name"]),
            "score": lambda: desk.score(at["name"], str(given.get("marker"))),
        }
        if at["action"] not in actions:
            return nothing()
        return await _apart(lambda: actions[at["action"]]() or {"name": at["name"]})

    def report(self, request: Request) -> Response:
        return self._html(request, "report.html")

    def page_of_slide(self, request: Request) -> Response:
        return self._html(request, f"{request.path_params['page']}.report.html")

    def _html(self, request: Request, name: str) -> Response:
        """Return a page in the folder of a run; its name is compared with those there are, never made into a path."""
        run = self._office.desk.runs.get(request.path_params["name"])
        pages = {p.relative_to(run.folder).as_posix(): p for p in run.folder.rglob("*.html")} if run else {}
        return answer(pages[name].read_bytes(), "text/html") if name in pages else nothing()

    def score(self, request: Request) -> Response:
        desk, at = self._office.desk, request.path_params
        run = desk.runs.get(at["name"])
        pages = desk.scores(run) if run else []
        return answer(pages[at["number"]][1].read_bytes(), "text/html") if at["number"] < len(pages) else nothing()


class _Looking:
    """The viewer of a slide of a run, opened when it is first asked for; the few seen last stay open."""

    def __init__(self, office: Office) -> None:
        self._office, self._turn = office, threading.Lock()
        self._open: OrderedDict[tuple[str, int], tuple[Shown, ASGIApp]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.concurrency import run_in_threadpool

        at = scope["path_params"]
        found = await run_in_threadpool(self._viewer, str(at["name"]), int(at["number"]))
        path = "/" + scope["path"].removeprefix(scope["root_path"]).lstrip("/")
        await found({**scope, "path": path, "root_path": ""}, receive, send)

    def _viewer(self, name: str, number: int) -> ASGIApp:
        from starlette.applications import Starlette

        desk = self._office.desk
        with self._turn:
            if (name, number) not in self._open:
                run = desk.runs.get(name)
                masters = desk.masters(run) if run else []
                if number >= len(masters):
                    return nothing()
                try:
                    shown = self._office.open(*masters[number])
                except WsipipeError as error:
                    return answer(f"{error}\n".encode(), "text/plain", 409)
                self._open[name, number] = shown, Starlette(routes=routes(shown))
            self._open.move_to_end((name, number))
            while len(self._open) > OPEN:
                self._open.popitem(last=False)[1][0].slide.close()
            return self._open[name, number][1]


async def _body(request: Request) -> Mapping[str, Any]:
    """Return the JSON object that was sent; an empty one for anything else."""
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_BYTES:
            return {}
    try:
        found = from_json(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


async def _apart(work: Callable[[], Any]) -> Response:
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(_tried, work)


def _tried(work: Callable[[], Any]) -> Response:
    """Return what *work* returns, or the one line that says why not."""
    try:
        return _json(work())
    except WsipipeError as error:
        return _json({"error": str(error)}, 400)


def _json(content: Any, status: int = 200) -> Response:
    return answer(as_json(content), "application/json", status)
