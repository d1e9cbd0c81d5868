"""Texts shortened to the width that there is, however long they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wsipipe.corpus import pictures
from wsipipe.figure import lettering, sheet


@pytest.mark.parametrize("fitted", [pictures._fitted, sheet._fitted])
def test_a_text_of_any_length_is_measured_few_times(
    fitted: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = lettering.width

    def width_of(text: str, size: int) -> float:
        asked.append(len(text))
        return real(text, size)

    for module in (pictures, sheet):
        monkeypatch.setattr(module, "width_of", width_of)
    short = fitted("a." * 50_000, 200, 11)
    assert len(asked) <= 210 and max(asked) <= 210
    assert real(short, 11) <= 200 and "…" in short and short.startswith("a.a.")
