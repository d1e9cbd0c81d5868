"""What a knob is: a dataclass field with its default, unit, range and help text."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from wsipipe.errors import SettingsError


def knob(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: Collection[str] = (),
    result: bool = True,
) -> Any:
    """Return a dataclass field with its default, help, unit and inclusive range in the metadata."""
    metadata = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices, "result": result}
    return dataclasses.field(default=default, metadata=metadata)


def check(settings: Any) -> None:
    """Raise :class:`~wsipipe.errors.SettingsError` when a field of *settings* is outside its range."""
    for field in dataclasses.fields(settings):
        value, meta = getattr(settings, field.name), field.metadata
        low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
        if value is None:
            continue
        if choices and value not in choices:
            raise SettingsError(f"{field.name} is {value!r}; expected one of {', '.join(choices)}")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            expected = f"at most {high}" if low is None else f"at least {low}" if high is None else f"{low} to {high}"
            raise SettingsError(f"{field.name} is {value}; expected {expected} {meta.get('unit', '')}".rstrip())


def determining(settings: Any) -> dict[str, Any]:
    """Return the fields of *settings* that determine the result, for fingerprints and file metadata."""
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.metadata.get("result", True)}


def chosen(settings: Any) -> dict[str, Any]:
    """Return what differs from the defaults and determines the result, so that a new knob changes no old run."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found[field.name] = chosen(value)
        elif value != field.default and field.metadata.get("result", True):
            found[field.name] = value
    return found


class Checked:
    """Mixin: a settings object checks its ranges when it is made."""

    def __post_init__(self) -> None:
        check(self)
