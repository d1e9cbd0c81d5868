"""Who may ask the start page for anything: this machine's own browser, with the token."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wsipipe.view.server import HEADERS, HOSTS

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

STEADY = {"cache-control": "no-store"}


class Guard:
    """Lets through what calls this machine by its own name and knows the token; to anything else there is nothing."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what may be asked."""
        if scope["type"] != "http":
            return
        _, _, rest = scope["path"].partition("/")
        token, slash, path = rest.partition("/")
        known = secrets.compare_digest(token.encode(), self._token.encode())

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        if known and slash and _may(scope["method"], dict(scope["headers"])):
            await self._app({**scope, "path": f"/{path}", "root_path": ""}, receive, guarded)
        else:
            await nothing()(scope, receive, guarded)


def _may(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether the call comes from a page of this machine, and asks for what is done here."""
    host = headers.get(b"host", b"").decode("latin-1")
    if host.rsplit(":", 1)[0] not in HOSTS or method not in ("GET", "HEAD", "POST"):
        return False
    if method != "POST":
        return True
    origin = headers.get(b"origin", f"http://{host}".encode()).decode("latin-1")
    is_json = headers.get(b"content-type", b"").split(b";")[0] == b"application/json"  # no form of another page is
    return origin == f"http://{host}" and is_json


def answer(content: bytes, kind: str, status: int = 200) -> Response:
    """Return an answer that no browser keeps."""
    from starlette.responses import Response

    return Response(content, status, headers=STEADY, media_type=kind)


def nothing() -> Response:
    """Return what is said of an address that is none."""
    return answer(b"nothing here\n", "text/plain", 404)
