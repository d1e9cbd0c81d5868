"""Answers to requests, and numbers in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.responses import Response

KEEP = {"cache-control": "private, max-age=86400"}
"""For what never changes; the next run has another token, hence other addresses."""
STEADY = {"cache-control": "no-store"}
"""For what may change."""


def number(text: str | None) -> float | None:
    """Return the finite number in *text*; None where there is none."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def answer(
    content: bytes | None, kind: str = "text/plain", headers: Mapping[str, str] = KEEP, status: int = 200
) -> Response:
    """Return an answer, or that there is nothing."""
    from starlette.responses import Response

    if content is None:
        return Response("nothing here\n", 404, media_type="text/plain")
    return Response(content, status, headers=dict(headers), media_type=kind)


def as_json(content: Any, status: int = 200) -> Response:
    """Return *content* as JSON."""
    import orjson

    return answer(orjson.dumps(content), "application/json", STEADY, status)
