"""The viewer's server: one slide and its cells for one browser on this machine, behind a random token.

Nothing that a request says becomes the name of a file: tiles and cells come from the two files given at the start, the
page and its scripts from a fixed list.
"""

from __future__ import annotations

import math
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from wsipipe.errors import MissingDependency, OutputError
from wsipipe.slide import Slide
from wsipipe.view import layer
from wsipipe.view.index import CellIndex
from wsipipe.view.pyramid import TILE, Pyramid

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost")
"""Names by which a browser may call; another one is a page elsewhere that plays tricks with names."""
ASSETS = {
    "viewer.css": "text/css",
    "viewer.js": "text/javascript",
    "cells.js": "text/javascript",
    "panel.js": "text/javascript",
    "openseadragon/openseadragon.min.js": "text/javascript",
    "openseadragon/LICENSE.txt": "text/plain",
}
HEADERS = (
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
     b"img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)  # fmt: skip
_KEEP = {"cache-control": "private, max-age=86400"}  # the next run has another token, hence other addresses
_STEADY = {"cache-control": "no-store"}


@dataclass(frozen=True)
class Shown:
    """What is shown.

    Attributes
    ----------
    slide : Slide
    name : str
        Of the slide.
    index : CellIndex, optional
    warnings : tuple of str
    """

    slide: Slide
    name: str
    index: CellIndex | None = None
    warnings: tuple[str, ...] = ()


def application(shown: Shown, token: str) -> ASGIApp:
    """Return the server of *shown*, all of whose addresses begin with *token*.

    Raises
    ------
    MissingDependency
        When Starlette is not installed.
    """
    starlette = _starlette()
    return _Guard(starlette(routes=_routes(shown)), token)


def listen(port: int) -> socket.socket:
    """Return a socket that listens on this machine only; port 0 takes a free one.

    Raises
    ------
    OutputError
        When the port is taken.
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
    except OSError as error:
        found.close()
        raise OutputError(f"cannot listen on port {port} ({error.strerror}); --port 0 takes a free one") from error
    found.listen(64)
    return found


def serve(shown: Shown, listener: socket.socket, token: str, started: Callable[[str], None]) -> None:
    """Serve until interrupted; *started* hears the address once the server answers.

    Raises
    ------
    MissingDependency
        When uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependency.of("uvicorn", "view", "wsipipe view") from error

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started(f"http://{HOST}:{listener.getsockname()[1]}/{token}/")

    config = uvicorn.Config(
        application(shown, token), log_level="warning", access_log=False, lifespan="off", server_header=False
    )
    Server(config).run(sockets=[listener])


def new_token() -> str:
    """Return 128 random bits as text for an address."""
    return secrets.token_urlsafe(16)


class _Guard:
    """Lets through what calls this machine by its own name and knows the token; to anything else there is nothing."""

    def __init__(self, app: Starlette, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        _, _, rest = scope["path"].partition("/")
        token, slash, path = rest.partition("/")
        known = secrets.compare_digest(token.encode(), self._token.encode())
        host = headers.get(b"host", b"").decode("latin-1").rsplit(":", 1)[0]
        if not (known and slash and host in HOSTS and scope["method"] in ("GET", "HEAD")):
            await _nothing(send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        await self._app({**scope, "path": f"/{path}", "root_path": ""}, receive, guarded)


async def _nothing(send: Send) -> None:
    head = [(b"content-type", b"text/plain"), *HEADERS]
    await send({"type": "http.response.start", "status": 404, "headers": head})
    await send({"type": "http.response.body", "body": b"nothing here\n"})


def _starlette() -> type[Starlette]:
    try:
        from starlette.applications import Starlette
    except ImportError as error:
        raise MissingDependency.of("starlette", "view", "wsipipe view") from error
    return Starlette


def _routes(shown: Shown) -> list[Any]:
    from starlette.routing import Route

    pyramid, index = Pyramid(shown.slide), shown.index
    handlers = _Handlers(shown, pyramid)
    routes = [
        Route("/", handlers.page),
        Route("/assets/{name:path}", handlers.asset),
        Route("/info", handlers.info),
        Route("/tiles/{level:int}/{column:int}_{row:int}.jpg", handlers.tile),
    ]
    if index is not None:
        routes += [
            Route("/cells/{level:int}/{column:int}_{row:int}", handlers.cells),
            Route("/cell", handlers.cell),
            Route("/density.png", handlers.density),
            Route("/spread/{measure}", handlers.spread),
        ]
    return routes


class _Handlers:
    """Answers to requests. Starlette runs them in threads."""

    def __init__(self, shown: Shown, pyramid: Pyramid) -> None:
        self._shown, self._pyramid = shown, pyramid
        package = resources.files("wsipipe.view") / "assets"
        self._page = (package / "index.html").read_bytes()
        self._assets = {name: package.joinpath(*name.split("/")).read_bytes() for name in ASSETS}

    @property
    def _index(self) -> CellIndex:
        assert self._shown.index is not None
        return self._shown.index

    def page(self, request: Request) -> Response:
        return _answer(self._page, "text/html", _STEADY)

    def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        return _answer(self._assets[name], ASSETS[name]) if name in self._assets else _answer(None)

    def info(self, request: Request) -> Response:
        return _json(about(self._shown, self._pyramid))

    def tile(self, request: Request) -> Response:
        at = request.path_params
        return _answer(self._pyramid.tile(at["level"], at["column"], at["row"]), "image/jpeg")

    def cells(self, request: Request) -> Response:
        at, index = request.path_params, self._index
        deepest = self._pyramid.max_level + layer.DEEPER
        measure = request.query_params.get("by", "")
        if not 0 <= at["level"] <= deepest or (measure and measure not in index.measures):
            return _answer(None)
        scale = 2.0 ** (self._pyramid.max_level - at["level"])
        data = layer.tile_bytes(index, scale, at["column"], at["row"], _hidden(request.query_params), measure)
        return _answer(data, "application/octet-stream")

    def cell(self, request: Request) -> Response:
        x, y = (_number(request.query_params.get(name)) for name in ("x", "y"))
        if x is None or y is None:
            return _answer(None)
        return _json(self._index.at(x, y, _hidden(request.query_params)))

    def density(self, request: Request) -> Response:
        heat = layer.density(self._index, _hidden(request.query_params))
        told = {"x-width": f"{heat.width:.3f}", "x-height": f"{heat.height:.3f}", "x-top": f"{heat.top:.1f}"}
        return _answer(heat.png, "image/png", _KEEP | told)

    def spread(self, request: Request) -> Response:
        measure = request.path_params["measure"]
        if measure not in self._index.measures:
            return _answer(None)
        return _json(self._index.spread(measure))


def about(shown: Shown, pyramid: Pyramid) -> dict[str, Any]:
    """Return what the page has to know before it draws anything."""
    info, index = shown.slide.info, shown.index
    cells: dict[str, Any] = {}
    if index is not None:
        model = index.about.get("model") or {}
        cells = {
            "cells": index.cells,
            "classes": index.classes(),
            "measures": list(index.measures),
            "bad": index.about.get("bad_boxes") or [],
            "model": model.get("name", ""),
            "cell_tile": layer.TILE,
            "deeper": layer.DEEPER,
            "diameter": round(index.diameter_px, 2),
        }
    return {
        "name": shown.name,
        "size": list(info.size),
        "mpp": list(info.mpp) if info.mpp else (index.about["mpp"] if index else None),
        "bounds": list(info.bounds) if info.bounds else None,
        "tile": TILE,
        "max_level": pyramid.max_level,
        "warnings": list(shown.warnings),
    } | cells


def _hidden(query: Mapping[str, str]) -> frozenset[int]:
    """Return the classes that ``?hide=0,3`` names; what is no number is passed over."""
    return frozenset(int(part) for part in query.get("hide", "").split(",") if part.isascii() and part.isdigit())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _answer(content: bytes | None, kind: str = "text/plain", headers: Mapping[str, str] = _KEEP) -> Response:
    """Return an answer, or that there is nothing."""
    from starlette.responses import Response

    if content is None:
        return Response("nothing here\n", 404, media_type="text/plain")
    return Response(content, headers=dict(headers), media_type=kind)


def _json(content: Any) -> Response:
    import orjson

    return _answer(orjson.dumps(content), "application/json", _STEADY)
