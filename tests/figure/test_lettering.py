"""Letters that Pillow's own font lacks are drawn all the same."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsipipe.figure.lettering import ascent, font, width, write


def drawn(text: str, size: int) -> NDArray[np.bool_]:
    picture = Image.new("L", (200, 100), 255)
    write(ImageDraw.Draw(picture), (20, 20), text, "black", size)
    return np.asarray(picture) < 128


@pytest.mark.parametrize("size", [11, 16, 40])
def test_micro_is_a_u_with_a_tail_and_square_a_small_raised_two(size: int) -> None:
    base = 20 + ascent(size)
    micro, u = drawn("µ", size), drawn("u", size)
    assert (micro[:base] == u[:base]).all() and not u[base + 2 :].any() and micro[base + 2 :].any()
    rows = np.flatnonzero(drawn("²", size).any(axis=1))
    assert rows.size and rows.max() < base - 1, "it stands above the line"
    assert bytes(font(size).getmask("µ")) == bytes(font(size).getmask("\uffff")), (
        "a font that has it needs none of this"
    )


def test_width_is_where_the_next_letter_begins() -> None:
    alone = drawn("m", 24)
    for before in ("µ", "mm²", "x"):
        both = drawn(f"{before}m", 24)
        shift = round(width(before, 24))
        columns = np.flatnonzero(both.any(axis=0)).max() - np.flatnonzero(alone.any(axis=0)).max()
        assert abs(int(columns) - shift) <= 1
