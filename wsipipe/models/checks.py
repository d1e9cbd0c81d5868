"""What is read from a header or a table of settings: its kind and range, told in one line when it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

WIDEST = 8192
"""Channels of a feature map that no model exceeds."""
Test = Callable[[Any], bool]


def expect(good: bool, what: str, value: Any, wanted: str) -> None:
    """Raise ValueError, which says what, its value and what was expected, unless the value is *good*."""
    if not good:
        raise ValueError(f"its {what} is {short(value)}; expected {wanted}")


def whole(low: float, high: float) -> Test:
    """Return the test of whole numbers in a range; True and False are none."""
    return lambda value: type(value) is int and low <= value <= high


def number(low: float, high: float) -> Test:
    """Return the test of numbers in a range."""
    return lambda value: type(value) in (int, float) and low <= value <= high


def many(each: Test, count: int | None = None) -> Test:
    """Return the test of lists and tuples, as long as *count* says and never empty, whose members pass *each*."""
    return lambda value: (
        isinstance(value, (list, tuple)) and len(value) == (count or len(value)) > 0 and all(map(each, value))
    )


def short(value: Any) -> str:
    """Return a value in few words, however large it is."""
    text = str(value)[:60] if not isinstance(value, int) or abs(value) < 10**60 else "a number without end"
    return text or "empty"
