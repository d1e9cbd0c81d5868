"""Cells drawn over the slide, for people to look at."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsipipe.artifacts import atomic_write
from wsipipe.errors import SettingsError
from wsipipe.figure import lettering
from wsipipe.formats.colours import NO_CLASS, Rgb, class_colours
from wsipipe.formats.parquet import batches, metadata
from wsipipe.geometry import intersect, is_empty
from wsipipe.slide import Slide
from wsipipe.slide.overview import read_scaled
from wsipipe.units import Box, Pair

OUTLINE_PX = 5.0
"""Cells at least this wide in the picture are outlined; smaller ones are dots."""
DOT_PX = 1.5
"""Cells smaller than this in the picture are shown as a map of their density."""
MAX_ENLARGEMENT = 3
"""Small regions are shown up to this many times larger than life."""
DENSITY_BIN = 4
"""Picture pixels on either side of the squares that cells are counted in."""
_UNREADABLE: Rgb = (128, 128, 128)
_FIXED = 4  # fractional bits of OpenCV's fixed-point coordinates

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """A part of the slide as a picture.

    Attributes
    ----------
    rgb : uint8 (h, w, 3)
    box : Box
        The part, in base pixels.
    scale : (float, float)
        Base pixels per picture pixel, in x and y.
    mpp : (float, float) or None
        Microns per picture pixel.
    """

    rgb: Picture
    box: Box
    scale: Pair
    mpp: Pair | None

    def place(self, xy_base: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return base pixels (n, 2) in OpenCV's picture coordinates, in which pixel centres are whole numbers."""
        placed: NDArray[np.float64] = (xy_base - self.box[:2]) / self.scale - 0.5
        return placed


def write_overlay(
    slide: Slide,
    master: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    region: Box | None = None,
    max_side: int = 4096,
) -> None:
    """Write a PNG of the cells of a master file over the slide, atomically.

    Outlines in the colours of their classes where cells are large enough in the picture, else dots, else a map of cell
    density; with a scale bar and a legend. Memory is that of the picture.

    Parameters
    ----------
    slide : Slide
    master : path
        From :func:`wsipipe.formats.parquet.merge_parts`.
    out : path
        Ends in ``.png``.
    region : Box, optional
        Part of the slide in base pixels; default: all of it.
    max_side : int
        The picture is reduced until neither side is longer.

    Raises
    ------
    SettingsError
        When *region* lies outside the slide or *out* is no PNG.
    StoreError
        When *master* is not a master file of wsipipe.
    OutputError
    """
    if not os.fspath(out).lower().endswith(".png"):
        raise SettingsError(f"the overlay is to be {os.fspath(out)}; expected a name that ends in .png")
    about = metadata(master)
    view = look(slide, region, max_side)
    legend = draw_cells(view, master, about["classes"])
    _draw_boxes(view, about.get("bad_boxes") or ())
    draw_scale_bar(view)
    draw_legend(view, legend)
    write_png(out, view.rgb)


def look(slide: Slide, region: Box | None = None, max_side: int = 4096) -> View:
    """Return *region* (base pixels; default: the whole slide), reduced until no side exceeds *max_side*.

    A region that is small beside *max_side* is enlarged, up to :data:`MAX_ENLARGEMENT` times.
    """
    info = slide.info
    whole = (0, 0, *info.size)
    box = intersect(region or whole, whole)
    if is_empty(box):
        raise SettingsError(f"the region {region} lies outside the slide of {info.size[0]} x {info.size[1]} pixels")
    width, height = box[2] - box[0], box[3] - box[1]
    reduce = max(1.0, width / max_side, height / max_side)
    enlarge = max(1, min(MAX_ENLARGEMENT, max_side // 2 // max(width, height)))
    size = max(1, round(width * enlarge / reduce)), max(1, round(height * enlarge / reduce))
    scale = width / size[0], height / size[1]
    mpp = None if info.mpp is None else (info.mpp[0] * scale[0], info.mpp[1] * scale[1])
    return View(read_scaled(slide, box, scale, size), box, scale, mpp)


def draw_cells(view: View, master: str | os.PathLike[str], classes: Mapping[str, Any]) -> dict[str, Rgb]:
    """Draw the cells of a master file in the way that is legible at the picture's scale, and return the legend."""
    width = mean_diameter_um(master) / math.sqrt(view.mpp[0] * view.mpp[1]) if view.mpp else OUTLINE_PX
    if width < DOT_PX:
        return _draw_density(view, master)
    colours, seen = class_colours(classes), set()
    columns = ["class", "geometry"] if width >= OUTLINE_PX else ["class", "x", "y"]
    for batch in batches(master, columns, view.box):
        names = np.array(batch["class"].to_pylist(), object)
        for name in dict.fromkeys(names.tolist()):
            seen.add(name)
            rows, colour = batch.filter(pa.array(names == name)), colours.get(name, NO_CLASS)
            if width >= OUTLINE_PX:
                draw_outlines(view, shapely.from_wkb(rows["geometry"].to_numpy(False)), colour, 1 if width < 30 else 2)
            else:
                _draw_dots(view, rows, colour, width)
    return colours | ({"no class": NO_CLASS} if colours and None in seen else {})


def draw_outlines(view: View, polygons: NDArray[np.object_], colour: Rgb, thickness: int = 1) -> None:
    """Draw the outlines of *polygons* (base pixels) into the picture, anti-aliased and placed to sub-pixel."""
    xy, owner = shapely.get_coordinates(shapely.get_exterior_ring(polygons), return_index=True)
    points = _fixed(view.place(xy))
    rings = np.split(points, np.flatnonzero(np.diff(owner)) + 1)
    cv2.polylines(view.rgb, rings, True, colour, thickness, cv2.LINE_AA, _FIXED)


def draw_scale_bar(view: View) -> None:
    """Draw a bar of a round number of microns at the lower left; nothing without a resolution."""
    if view.mpp is None:
        return
    height, width = view.rgb.shape[:2]
    microns = round_length(width * view.mpp[0] / 5)
    unit = _unit(view)
    text = f"{microns / 1000:g} mm" if microns >= 1000 else f"{microns:g} µm"
    length, text_width = round(microns / view.mpp[0]), math.ceil(lettering.width(text, unit))
    pad, bar = unit // 2, max(2, unit // 6)
    x, y = pad, height - pad - 2 * unit
    _panel(view, x, y, max(length, text_width) + unit, 2 * unit)
    _write(view, text, x + pad, y + unit + bar, unit)
    cv2.rectangle(
        view.rgb, (x + pad, y + 2 * unit - 2 * bar), (x + pad + length - 1, y + 2 * unit - bar), (0, 0, 0), -1
    )


def draw_legend(view: View, colours: Mapping[str, Rgb]) -> None:
    """Draw the names and colours of the classes at the upper left; nothing without classes."""
    if not colours:
        return
    unit = _unit(view)
    pad, row = unit // 2, unit * 3 // 2
    _panel(
        view,
        pad,
        pad,
        max(math.ceil(lettering.width(name, unit)) for name in colours) + 3 * unit,
        row * len(colours) + pad,
    )
    for i, (name, colour) in enumerate(colours.items()):
        y = 2 * pad + i * row
        cv2.rectangle(view.rgb, (2 * pad, y), (2 * pad + unit, y + unit), colour, -1)
        _write(view, name, 2 * pad + row, y + unit, unit)


def round_length(most: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20, 50, ... (or tenths, ...) that is at most *most*."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def write_png(out: str | os.PathLike[str], rgb: Picture) -> None:
    """Write a picture (h, w, 3) as PNG, atomically."""
    _, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    with atomic_write(out) as file:
        file.write(data.tobytes())


def mean_diameter_um(master: str | os.PathLike[str]) -> float:
    """Return the mean over cells of the diameter of a disc of their area."""
    total, count = 0.0, 0
    for batch in batches(master, ["area_um2"]):
        known = batch["area_um2"].drop_null().to_numpy(False).astype(np.float64)
        total += float(np.sqrt(known[known >= 0]).sum())
        count += len(known)
    return 2 / math.sqrt(math.pi) * total / max(1, count)


def _draw_dots(view: View, rows: pa.RecordBatch, colour: Rgb, diameter: float) -> None:
    """Draw a disc of *diameter* picture pixels at each centroid."""
    centres = _fixed(view.place(np.column_stack([rows["x"].to_numpy(), rows["y"].to_numpy()])))
    radius = max(1, round(diameter / 2 * (1 << _FIXED)))
    for x, y in centres.tolist():
        cv2.circle(view.rgb, (x, y), radius, colour, -1, cv2.LINE_AA, _FIXED)


def _draw_density(view: View, master: str | os.PathLike[str]) -> dict[str, Rgb]:
    """Lay a map of cells per area over the picture, from clear (none) to strong (the 99.9th percentile)."""
    heat, top = heat_map(cell_counts(view, master))
    shown = cv2.resize(heat, (view.rgb.shape[1], view.rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    opacity = shown[..., 3:] / 255
    view.rgb[:] = np.rint(view.rgb * (1 - opacity) + shown[..., :3] * opacity).astype(np.uint8)
    mm2 = DENSITY_BIN**2 * (view.mpp[0] * view.mpp[1] if view.mpp else math.nan) * 1e-6
    return {f"{top / mm2:.0f} cells/mm²": (253, 231, 37)}


def heat_map(counts: NDArray[np.float32], sigma: float = 1.0) -> tuple[Picture, float]:
    """Return counts (h, w) as colours (h, w, 4), from clear (none) to strong, and the count of the strongest (or 0).

    Counts are smoothed by a Gaussian of *sigma* pixels; the strongest colour is that of the 99.9th percentile. Colours
    are those of viridis, which print in grey and are told apart by everyone; alpha is straight, not premultiplied.
    """
    smooth = cv2.GaussianBlur(counts, (0, 0), sigma)
    top = max(float(np.quantile(smooth[smooth > 0], 0.999)), 1e-6) if (smooth > 0).any() else 0.0
    share = np.minimum(smooth / (top or 1.0), 1)
    heat = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    alpha = np.rint(255 * 0.75 * np.minimum(share * 4, 1)).astype(np.uint8)
    return np.dstack([heat, alpha]), top


def cell_counts(view: View, master: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Return the number of cells in each square of :data:`DENSITY_BIN` picture pixels."""
    height, width = view.rgb.shape[:2]
    shape = -(-height // DENSITY_BIN), -(-width // DENSITY_BIN)
    counts = np.zeros(shape, np.float32)
    for batch in batches(master, ["x", "y"], view.box):
        xy = view.place(np.column_stack([batch["x"].to_numpy(), batch["y"].to_numpy()])) + 0.5
        column, row = np.floor(xy / DENSITY_BIN).astype(np.intp).T
        inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        np.add.at(counts, (row[inside], column[inside]), 1)
    return counts


def _draw_boxes(view: View, boxes: Sequence[Box]) -> None:
    """Cross out what could not be read."""
    for x0, y0, x1, y1 in boxes:
        corners = _fixed(view.place(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)))
        cv2.polylines(view.rgb, [corners, corners[[0, 2]], corners[[1, 3]]], True, _UNREADABLE, 1, cv2.LINE_AA, _FIXED)


def _fixed(xy: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(xy * (1 << _FIXED)).astype(np.int32)


def _unit(view: View) -> int:
    """Return the height of a line of text in picture pixels."""
    return int(np.clip(min(view.rgb.shape[:2]) / 40, 12, 60))


def _panel(view: View, x: int, y: int, width: int, height: int) -> None:
    """Lighten a rectangle to write on."""
    part = view.rgb[max(0, y) : y + height, max(0, x) : x + width]
    part[:] = (part * 0.15 + 255 * 0.85).astype(np.uint8)


def _write(view: View, text: str, x: int, y: int, unit: int) -> None:
    """Write *text*, whose baseline begins at *x*, *y*."""
    top = y - lettering.ascent(unit)
    y0 = max(0, top)
    part = view.rgb[y0 : max(0, y + unit), x:]
    if part.size:
        picture = Image.fromarray(part)
        lettering.write(ImageDraw.Draw(picture), (0, top - y0), text, (0, 0, 0), unit)
        part[:] = np.asarray(picture)
