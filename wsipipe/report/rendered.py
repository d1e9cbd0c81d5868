"""Pages from templates: what is put in is escaped, and a page is written whole or not at all."""

from __future__ import annotations

import functools
import os
from typing import Any

import jinja2

from wsipipe.artifacts import atomic_write
from wsipipe.report import charts


def render(template: str, **content: Any) -> str:
    """Return a page made of a template in this package; what is put in is escaped."""
    return _environment().get_template(template).render(number=charts.number, **content)


def write_page(out: str | os.PathLike[str], page: str) -> None:
    """Write a page, atomically."""
    with atomic_write(out, "w") as file:
        file.write(page)


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("wsipipe.report")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
