"""What to say of keys and sections of a settings file that nobody knows, or that stand where they do not belong."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def outside(key: str, sections: Mapping[str, type[Any]]) -> str:
    """Return what to say of a *key* that stands above the first section, or of a section that is no table."""
    if key in sections:
        return f"{key} is a section; expected [{key}] in a line of its own, and its settings below"
    name = key.replace("-", "_")
    homes = [section for section, cls in sections.items() if name in {f.name for f in dataclasses.fields(cls)}]
    wanted = " or ".join(f"[{home}]" for home in homes) or f"a section, such as [{next(iter(sections))}]"
    return f"{key!r} stands outside a section; expected it below {wanted}"


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return what to say of a section or key (*what*) that is not *known*: the nearest that is, and all of them."""
    names = list(known)
    near = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.0)[0]
    return f"unknown {what} {name!r}; did you mean {near!r}? Known: {', '.join(names)}"
