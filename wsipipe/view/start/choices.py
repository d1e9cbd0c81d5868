"""Options for a page, made from the settings' own knobs, and back into a file of settings."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from wsipipe.errors import SettingsError

Sections = Mapping[str, type[Any]]
KINDS = {int: "int", float: "float", bool: "bool", str: "str", tuple: "box"}
FIRST = {
    "slide": ("mpp",),
    "tissue": ("tissue", "exclude_quality"),
    "grid": ("stain",),
    "cells": ("expand_um", "threshold", "min_area_um2", "drop_oversize"),
    "run": ("device", "workers"),
}
"""What most people look for; the page folds the rest away."""


def choices(sections: Sections) -> list[dict[str, Any]]:
    """Return the knobs of each section: heading, then name, kind, default, unit, range and help of each."""
    return [
        {"section": name, "heading": _heading(cls), "knobs": [_knob(name, cls, f) for f in dataclasses.fields(cls)]}
        for name, cls in sections.items()
    ]


def _knob(section: str, cls: type[Any], field: dataclasses.Field[Any]) -> dict[str, Any]:
    meta = field.metadata
    return {
        "name": field.name,
        "flag": "--" + field.name.replace("_", "-"),
        "kind": KINDS[_kind(cls, field.name)],
        "default": None if field.default is dataclasses.MISSING else field.default,
        "first": field.name in FIRST.get(section, ()),
    } | {key: meta.get(key) for key in ("help", "unit", "low", "high", "choices")}


def settings_file(given: Mapping[str, Mapping[str, Any]], sections: Sections) -> str:
    """Return the TOML text of the settings that were *given*, by section and name, after checking each.

    Raises
    ------
    SettingsError
        When there is no such setting, or a value is out of range.
    """
    lines: list[str] = []
    for section, values in given.items():
        if section not in sections or not isinstance(values, Mapping):
            raise SettingsError(f"no settings called {section!r}; expected some of {', '.join(sections)}")
        cls = sections[section]
        names = {f.name for f in dataclasses.fields(cls)}
        if unknown := set(values) - names:
            raise SettingsError(f"{section}: no setting {min(unknown)!r}")
        typed = {name: _typed(value, _kind(cls, name), f"{section} {name}") for name, value in values.items()}
        cls(**typed)
        if typed:
            lines += [f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in typed.items()), ""]
    return "\n".join(lines)


def _kind(cls: type[Any], name: str) -> type[Any]:
    """Return the plain type of a field: ``float`` for ``float | None``."""
    hint = typing.get_type_hints(cls)[name]
    if isinstance(hint, types.UnionType):
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return typing.cast(type[Any], typing.get_origin(hint) or hint)


def _typed(value: Any, kind: type[Any], where: str) -> Any:
    """Return a value of JSON as *kind*; JavaScript knows one kind of number."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is tuple and isinstance(value, list) and [type(v) for v in value] == [int] * 4:
        return tuple(value)
    if type(value) is not kind:
        raise SettingsError(f"{where} is {value!r}; expected {KINDS[kind]}")
    return value


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def _heading(cls: type[Any]) -> str:
    return (cls.__doc__ or cls.__name__).strip().splitlines()[0].split(". ")[0].rstrip(".")
