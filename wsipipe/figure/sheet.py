"""Pictures in rows and columns with headings, as one PNG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsipipe.artifacts import atomic_path
from wsipipe.figure.lettering import width as width_of
from wsipipe.figure.lettering import write
from wsipipe.figure.overlay import View, draw_scale_bar
from wsipipe.figure.regions import Region
from wsipipe.formats.colours import Rgb
from wsipipe.units import Pair

INK, FAINT = (30, 30, 30), (110, 110, 110)
EDGE, GAP = 24, 10
HEADING, CAPTION, LABEL = 24, 16, 15
"""Sizes of type in pixels: of a section's title, above a column, below a picture."""
COLOURS = (
    (0, 90, 160),
    (213, 94, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (86, 180, 233),
    (120, 90, 50),
    (170, 170, 170),
)
"""Of clusters, the darkest tissue first; told apart by people who do not see red and green (Okabe and Ito's set)."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Section:
    """A part of the sheet: pictures in rows and columns under a heading.

    Attributes
    ----------
    title, note : str
        The heading, and what it means.
    captions : sequence of str
        Above each column.
    rows : sequence of sequences of (Pixels or None)
        Square pictures of one size; None leaves a place empty.
    labels : sequence of str
        Below the first picture of each row; in its place where that is None.
    legend : sequence of (str, Rgb)
    """

    title: str
    note: str
    captions: Sequence[str]
    rows: Sequence[Sequence[Pixels | None]]
    labels: Sequence[str]
    legend: Sequence[tuple[str, Rgb]] = ()


def write_sheet(path: str | os.PathLike[str], title: str, sections: Sequence[Section], panel: int) -> tuple[int, int]:
    """Write *sections*, one below the other, as PNG, and return its width and height.

    Parameters
    ----------
    panel : int
        Side of a picture in pixels.

    Raises
    ------
    OutputError
    """
    width = 2 * EDGE + max(len(s.captions) for s in sections) * (panel + GAP) - GAP
    heights = [_height(section, panel) for section in sections]
    sheet = Image.new("RGB", (width, 3 * EDGE + sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    write(pen, (EDGE, EDGE), _fitted(title, width - 2 * EDGE, LABEL), FAINT, LABEL)
    top = 2 * EDGE + LABEL
    for section, height in zip(sections, heights):
        _draw(sheet, pen, section, top, panel)
        top += height
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG", optimize=False)
    return sheet.size


def picture(region: Region, side: int, point: Pair | None = None) -> Pixels:
    """Return a region as a picture of *side* pixels, with a scale bar and a ring at *point* (shares of its side)."""
    small = _resized(region.pixels, side, cv2.INTER_CUBIC)
    scale = region.side / side
    mpp = None if region.mpp is None else (region.mpp[0] * scale, region.mpp[1] * scale)
    draw_scale_bar(View(small, (0, 0, region.side, region.side), (scale, scale), mpp))
    return small if point is None else ringed(small, point)


def coloured(labels: NDArray[np.intp], side: int) -> Pixels:
    """Return a map of clusters in their colours, places as squares."""
    return _resized(np.array(COLOURS, np.uint8)[labels], side, cv2.INTER_NEAREST)


def heated(values: NDArray[np.float32], pixels: Pixels, side: int, point: Pair) -> Pixels:
    """Return *values* (h, w) as colours over the grey picture, the least dark and the greatest bright."""
    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    heat = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = cv2.cvtColor(_resized(pixels, side, cv2.INTER_CUBIC), cv2.COLOR_RGB2GRAY)[..., None]
    large = _resized(np.ascontiguousarray(heat), side, cv2.INTER_NEAREST)
    return ringed(np.rint(0.72 * large + 0.28 * grey).astype(np.uint8), point)


def resized(pixels: Pixels, side: int) -> Pixels:
    """Return a square picture at another size, its pixels as squares."""
    return _resized(pixels, side, cv2.INTER_NEAREST)


def ringed(pixels: Pixels, point: Pair) -> Pixels:
    """Return a copy of *pixels* with a ring around *point* (shares of the side)."""
    out, radius = pixels.copy(), max(6, len(pixels) // 32)
    centre = int(point[0] * len(pixels)), int(point[1] * len(pixels))
    for colour, weight in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        cv2.circle(out, centre, radius, colour, weight, cv2.LINE_AA)
    return out


def _resized(pixels: Pixels, side: int, how: int) -> Pixels:
    """Return a square picture at another size; reduced, it is averaged."""
    if len(pixels) == side:
        return pixels.copy()
    averaged = len(pixels) > side and how != cv2.INTER_NEAREST
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA if averaged else how), np.uint8)


def _height(section: Section, panel: int) -> int:
    under = sum(panel + GAP + _under(row) for row in section.rows)
    return HEADING + 3 * GAP + (HEADING if section.legend else 0) + CAPTION + under + EDGE


def _under(row: Sequence[Pixels | None]) -> int:
    """Return the space for a label below a row: none where it stands in place of the first picture."""
    return 0 if row[0] is None else LABEL + GAP


def _draw(sheet: Image.Image, pen: ImageDraw.ImageDraw, section: Section, top: int, panel: int) -> None:
    write(pen, (EDGE, top), section.title, INK, HEADING)
    after = EDGE + width_of(section.title, HEADING) + 2 * GAP
    note = _fitted(section.note, sheet.width - EDGE - after, CAPTION)
    write(pen, (after, top + HEADING - CAPTION), note, FAINT, CAPTION)
    y = top + HEADING + GAP
    if section.legend:
        _draw_legend(pen, section.legend, y)
        y += HEADING
    y += GAP
    for column, caption in enumerate(section.captions):
        x = EDGE + column * (panel + GAP)
        write(pen, (x, y), _fitted(caption, panel, CAPTION), INK, CAPTION)
    y += CAPTION + GAP
    for row, label in zip(section.rows, section.labels):
        for column, pixels in enumerate(row):
            if pixels is not None:
                sheet.paste(Image.fromarray(pixels), (EDGE + column * (panel + GAP), y))
        below = y + panel + 3 if row[0] is not None else y + panel // 2
        write(pen, (EDGE, below), _fitted(label, panel, LABEL), FAINT, LABEL)
        y += panel + GAP + _under(row)


def _draw_legend(pen: ImageDraw.ImageDraw, legend: Sequence[tuple[str, Rgb]], y: int) -> None:
    x: float = EDGE
    for text, colour in legend:
        pen.rectangle((x, y + 2, x + CAPTION, y + 2 + CAPTION), fill=colour)
        write(pen, (x + CAPTION + 6, y), text, INK, CAPTION)
        x += CAPTION + 6 + width_of(text, CAPTION) + 2 * GAP


def _fitted(text: str, width: float, size: int) -> str:
    """Return *text*, its end left out where it is wider than *width* pixels."""
    short = text if len(text) <= width else text[: int(width)] + "…"  # letters are wider than a pixel
    while len(short) > 2 and width_of(short, size) > width:
        short = short.rstrip("…")[:-1] + "…"
    return short
