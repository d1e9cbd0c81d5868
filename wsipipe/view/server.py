"""The viewer's server: one slide and its cells for one browser on this machine, behind a random token.

Nothing that a request says becomes the name of a file: tiles and cells come from the two files given at the start, the
page and its scripts from a fixed list.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wsipipe.errors import MissingDependency, OutputError
from wsipipe.view import edits, labelling, pair
from wsipipe.view.answers import Shown, routes
from wsipipe.view.labelling import Labelling
from wsipipe.view.pair import Pair

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost")
"""Names by which a browser may call; another one is a page elsewhere that plays tricks with names."""


def headers_of(frames: str = "'none'") -> tuple[tuple[bytes, bytes], ...]:
    """Return what every answer tells the browser: nothing from elsewhere, and no page around this one.

    *frames* is whose frames a page may hold and lie in: the pages of labelling and of two results alone hold the
    viewer in frames of their own, hence ``'self'`` there; no page of another address ever.
    """
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
        f"connect-src 'self'; frame-src {frames}; base-uri 'none'; form-action 'none'; frame-ancestors {frames}"
    )
    return (
        (b"content-security-policy", policy.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
        (b"cross-origin-resource-policy", b"same-origin"),
    )


HEADERS = headers_of()
"""Of a page that holds no frame."""
FRAMED = headers_of("'self'")


def application(shown: Shown | Labelling | Pair, token: str) -> ASGIApp:
    """Return the server of *shown*, all of whose addresses begin with *token*.

    Raises
    ------
    MissingDependency
        When Starlette is not installed.
    """
    starlette = _starlette()
    if isinstance(shown, Labelling):
        return _Guard(starlette(routes=labelling.routes(shown)), token, labelling.POSTS, FRAMED)
    if isinstance(shown, Pair):
        return _Guard(starlette(routes=pair.routes(shown)), token, pair.POSTS, FRAMED)
    return _Guard(starlette(routes=routes(shown)), token, edits.POSTS if shown.editing else frozenset())


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


def serve(shown: Shown | Labelling | Pair, listener: socket.socket, token: str, started: Callable[[str], None]) -> None:
    """Serve until interrupted; *started* hears the address once the server answers.

    Raises
    ------
    MissingDependency
        When uvicorn is not installed.
    """
    run(application(shown, token), "wsipipe view", listener, token, started)


def run(app: Any, command: str, listener: socket.socket, token: str, started: Callable[[str], None]) -> None:
    """Serve *app* (ASGI) until interrupted; *started* hears the address once the server answers.

    Raises
    ------
    MissingDependency
        When uvicorn is not installed; *command* names who wants it.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependency.of("uvicorn", "view", command) from error

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started(f"http://{HOST}:{listener.getsockname()[1]}/{token}/")

    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", server_header=False)
    Server(config).run(sockets=[listener])


def new_token() -> str:
    """Return 128 random bits as text for an address."""
    return secrets.token_urlsafe(16)


class _Guard:
    """Lets through what calls this machine by its own name and knows the token; to anything else there is nothing."""

    def __init__(
        self, app: Starlette, token: str, posts: frozenset[str], headers: Sequence[tuple[bytes, bytes]] = HEADERS
    ) -> None:
        self._app, self._token, self._posts, self._headers = app, token, posts, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        _, _, rest = scope["path"].partition("/")
        token, slash, path = rest.partition("/")
        known = secrets.compare_digest(token.encode(), self._token.encode())
        host = headers.get(b"host", b"").decode("latin-1").rsplit(":", 1)[0]
        asked = scope["method"] in ("GET", "HEAD") or (
            scope["method"] == "POST" and f"/{path}" in self._posts and _from_own_page(headers)
        )
        if not (known and slash and host in HOSTS and asked):
            await _nothing(send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._headers]}
            await send(message)

        await self._app({**scope, "path": f"/{path}", "root_path": ""}, receive, guarded)


def _from_own_page(headers: dict[bytes, bytes]) -> bool:
    """Whether a request that changes something comes from a page of this server, and not from one elsewhere."""
    origin = headers.get(b"origin", b"").decode("latin-1")
    own = f"http://{headers.get(b'host', b'').decode('latin-1')}"
    return headers.get(b"content-type", b"") == b"application/json" and origin in ("", own)


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
