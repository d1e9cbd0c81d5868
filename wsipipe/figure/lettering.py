"""Text in pictures, by the font that comes with Pillow; it lacks µ and ², which are drawn of what it has."""

from __future__ import annotations

import re
from functools import lru_cache

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = str | tuple[int, int, int]
MICRO, SQUARE = "µ", "²"
_PARTS = re.compile(f"([{MICRO}{SQUARE}])")
SMALL, RAISED = 0.62, 0.32
"""Size of the ² and height of its foot above the line, in sizes of the font."""
STEM, TAIL = 0.09, 0.22
"""Width of the stem of the µ, and how far it reaches below the line, in sizes of the font."""


@lru_cache(maxsize=32)
def font(size: int) -> Font:
    """Return the font at a *size* in pixels."""
    return ImageFont.load_default(size)


def width(text: str, size: int) -> float:
    """Return the width of *text* in pixels."""
    return sum(_width(part, size) for part in _PARTS.split(text))


def write(pen: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, fill: Colour, size: int) -> None:
    """Write *text* in one line whose upper left corner is at *xy*."""
    x, base = xy[0], xy[1] + ascent(size)
    for part in _PARTS.split(text):
        if part == SQUARE:
            pen.text((x, base - RAISED * size), "2", fill, font(_small(size)), anchor="ls")
        elif part:
            pen.text((x, base), part.replace(MICRO, "u"), fill, font(size), anchor="ls")
        if part == MICRO:
            left = round(x + font(size).getbbox("u", anchor="ls")[0])
            pen.rectangle((left, base, left + max(1, round(STEM * size)) - 1, base + round(TAIL * size)), fill)
        x += _width(part, size)


def ascent(size: int) -> int:
    """Return how far the line that letters stand on is below their upper left corner."""
    face = font(size)
    return face.getmetrics()[0] if isinstance(face, ImageFont.FreeTypeFont) else size


def _width(part: str, size: int) -> float:
    return font(_small(size)).getlength("2") if part == SQUARE else font(size).getlength(part.replace(MICRO, "u"))


def _small(size: int) -> int:
    return max(6, round(SMALL * size))
