"""Pictures in a report: pixels as JPEG inside the page, and on them SVG that stays sharp in print."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import shapely
from markupsafe import Markup
from numpy.typing import NDArray

from wsipipe.figure.overlay import DENSITY_BIN, View, cell_counts, heat_map, look, round_length
from wsipipe.formats.colours import NO_CLASS, Rgb
from wsipipe.formats.parquet import batches
from wsipipe.quality.ink import THRESHOLD, signal_of
from wsipipe.quality.light import glass_colour
from wsipipe.report.charts import css
from wsipipe.report.survey import Field
from wsipipe.slide import Slide
from wsipipe.stain.unmix import HE, vectors_of
from wsipipe.tissue import Tissue
from wsipipe.units import Box, Pair

OVERVIEW_SIDE, FIELD_SIDE, SMALL_SIDE = 1280, 720, 320
"""Longest sides in pixels: of the whole slide, of a field of view, of a slide among others."""
SMOOTH_UM = 25.0
"""Density is smoothed by a Gaussian at least this wide (standard deviation)."""
_TENTHS = 10
"""Outlines are placed to a tenth of a picture pixel."""
_TOLD = ("area_um2", "probability", "class_probability")

Path = str | os.PathLike[str]


@dataclass
class Picture:
    """A picture of the page.

    Attributes
    ----------
    width, height : int
        In picture pixels, which are the units of the layers.
    source : str
        The pixels as a ``data:`` URI.
    layers : list of Markup
        SVG on top of them.
    """

    width: int
    height: int
    source: str
    layers: list[Markup] = field(default_factory=list)


def blank_view(size: tuple[int, int], mpp: Pair | None, background: Rgb = (255, 255, 255)) -> View:
    """Return an empty view of a slide that is not at hand."""
    scale = max(1.0, max(size) / OVERVIEW_SIDE)
    shape = max(1, round(size[1] / scale)), max(1, round(size[0] / scale)), 3
    scales = size[0] / shape[1], size[1] / shape[0]
    rgb = np.full(shape, background, np.uint8)
    return View(rgb, (0, 0, *size), scales, None if mpp is None else (mpp[0] * scales[0], mpp[1] * scales[1]))


def picture_of(view: View, quality: int = 82) -> Picture:
    """Return the pixels of *view* as a picture without layers."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(view.rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    height, width = view.rgb.shape[:2]
    return Picture(width, height, _uri("image/jpeg", data))


def overview(view: View, tissue: Tissue | None, fields: Iterable[Field], bad: Iterable[Box]) -> Picture:
    """Return *view* with the outline of the tissue, numbered fields of view, unreadable areas and a scale bar."""
    picture = picture_of(view)
    if tissue is not None and tissue.polygons:
        picture.layers.append(Markup('<path class="tissue" d="{}"/>').format(svg_path(view, tissue.polygons)))
    picture.layers += [_square(view, box, "bad", "") for box in bad]
    picture.layers += [_square(view, f.box, "field", str(i), f"#field-{i}") for i, f in enumerate(fields, 1)]
    picture.layers.append(scale_bar(view))
    return picture


def tissue_share(view: View, tissue: Tissue) -> Callable[[Box], float]:
    """Return a function that tells which share of a box (base pixels) is tissue, and no gap or glass within it."""
    signal, _, _ = signal_of(view.rgb, glass_colour(view.rgb, (255, 255, 255)))
    stained = signal >= THRESHOLD

    def share(box: Box) -> float:
        inside = sum(polygon.area for polygon in tissue.clipped(box))
        within = inside / max(1, (box[2] - box[0]) * (box[3] - box[1]))
        (x0, y0), (x1, y1) = np.rint(view.place(np.array([box[:2], box[2:]], np.float64)) + 0.5).astype(int).clip(0)
        part = stained[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
        return min(within, float(part.mean())) if part.size else 0.0

    return share


def density(view: View, master: Path, tissue: Tissue | None = None) -> tuple[Markup, float]:
    """Return a map of cell density over *view* as SVG, and the cells per mm² of its strongest colour (0: unknown).

    Smoothing spreads cells a little beyond where they lie; with *tissue* the map ends where that does.
    """
    bin_um = DENSITY_BIN * math.sqrt(view.mpp[0] * view.mpp[1]) if view.mpp else math.inf
    heat, top = heat_map(cell_counts(view, master), max(1.0, SMOOTH_UM / bin_um))
    _, data = cv2.imencode(".png", cv2.cvtColor(heat, cv2.COLOR_RGBA2BGRA))
    height, width = heat.shape[0] * DENSITY_BIN, heat.shape[1] * DENSITY_BIN
    image = Markup('<image class="heat" width="{}" height="{}" href="{}" preserveAspectRatio="none"/>')
    mm2 = DENSITY_BIN**2 * view.mpp[0] * view.mpp[1] * 1e-6 if view.mpp else 0.0
    layer = image.format(width, height, _uri("image/png", data))
    if tissue is not None and tissue.polygons:
        outline = svg_path(view, tissue.polygons)
        clip = Markup('<clipPath id="in-tissue"><path clip-rule="evenodd" d="{}"/></clipPath>').format(outline)
        layer = clip + Markup('<g clip-path="url(#in-tissue)">{}</g>').format(layer)
    return layer, top / mm2 if mm2 else 0.0


def field_picture(slide: Slide, master: Path, part: Field, colours: Mapping[str, Rgb]) -> tuple[Field, Picture]:
    """Return a field of view, with the number of cells that it shows, and the picture of it.

    The outlines of its cells tell their measurements when pointed at.
    """
    view = look(slide, part.box, FIELD_SIDE)
    picture = picture_of(view, 88)
    columns = ["geometry", "class", *_TOLD[:2]]
    paths = []
    for batch in batches(master, columns, part.box):
        polygons = shapely.from_wkb(batch["geometry"].to_numpy(False))
        names = batch["class"].to_pylist()
        areas, sure = (batch[name].to_numpy(False) for name in _TOLD[:2])
        for polygon, name, area, probability in zip(polygons, names, areas, sure):
            told = f"{name + ', ' if name else ''}{area:.0f} µm², probability {probability:.2f}"
            paths.append(cell_outline(view, polygon, colours.get(name, NO_CLASS), told))
    height, width = view.rgb.shape[:2]
    picture.layers += [outlined(paths, width, height), scale_bar(view)]
    return part._replace(cells=len(paths)), picture


def stain_pictures(
    slide: Slide | None, fields: Sequence[Field], told: Mapping[str, str] | None
) -> list[tuple[str, Picture]]:
    """Return one field of view of a slide with a marker, as each of its stains alone would look; of H&E nothing.

    Parameters
    ----------
    fields : sequence of Field
        The one of typical density is shown.
    told : mapping, optional
        The stain vectors of the cells; see :meth:`wsipipe.stain.unmix.StainVectors.as_dict`.
    """
    if slide is None or not fields or not told or (vectors := vectors_of(told)).keys == HE.keys:
        return []
    part = next((field for field in fields if "typical" in field.reason), fields[0])
    view = look(slide, part.box, FIELD_SIDE)
    found = []
    for k, (name, _) in enumerate(vectors.stains):
        picture = picture_of(replace(view, rgb=vectors.alone(view.rgb, k)), 88)
        picture.layers.append(scale_bar(view))
        found.append((name, picture))
    return found


def outlined(paths: Iterable[Markup], width: int, height: int) -> Markup:
    """Return outlines (:func:`cell_outline`) as a layer of a picture of that size."""
    clip = Markup('<svg class="cells" width="{}" height="{}"><g transform="scale({})">').format(
        width, height, 1 / _TENTHS
    )
    return clip + Markup("").join(paths) + Markup("</g></svg>")


def scale_bar(view: View) -> Markup:
    """Return a bar of a round number of microns for the lower left corner; nothing without a resolution."""
    if view.mpp is None:
        return Markup("")
    height, width = view.rgb.shape[:2]
    microns, unit = round_length(width * view.mpp[0] / 5), max(width, height) / 28
    text = f"{microns / 1000:g} mm" if microns >= 1000 else f"{microns:g} µm"
    length = microns / view.mpp[0]
    return Markup(
        '<g class="scale"><rect x="{0:.1f}" y="{1:.1f}" width="{2:.1f}" height="{3:.1f}" rx="{7:.1f}"/>'
        '<text x="{4:.1f}" y="{5:.1f}" font-size="{6:.1f}">{8}</text>'
        '<path d="M{9:.1f} {10:.1f}h{11:.1f}" stroke-width="{7:.1f}"/></g>'
    ).format(
        *(unit / 2, height - 2.6 * unit, max(length, 0.62 * unit * len(text)) + unit, 2.1 * unit),
        *(unit, height - 1.45 * unit, unit, unit / 6, text, unit, height - unit, length),
    )


def _square(view: View, box: Box, kind: str, label: str, link: str = "") -> Markup:
    """Return a box of the slide as SVG; with a number in its corner, and a link, where these are given."""
    (x0, y0), (x1, y1) = view.place(np.array([box[:2], box[2:]], np.float64)) + 0.5
    least = max(view.rgb.shape[:2]) / 160
    x1, y1 = max(x1, x0 + least), max(y1, y0 + least)
    shape = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, x0, y0, x1 - x0, y1 - y0
    )
    if not label:
        return shape
    size = max(view.rgb.shape[:2]) / 30
    inside = y0 < 1.3 * size
    text = Markup('<text class="number" x="{:.1f}" y="{:.1f}" font-size="{:.1f}">{}</text>').format(
        x0 + size / 6, y0 + size if inside else y0 - size / 5, size, label
    )
    return Markup('<a href="{}">{}{}</a>').format(link, shape, text)


def svg_path(view: View, polygons: Iterable[shapely.Polygon]) -> str:
    """Return polygons (base pixels) as the data of an SVG path in picture pixels, to half a pixel."""
    rings = []
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            placed = shapely.linestrings(view.place(shapely.get_coordinates(ring)) + 0.5)
            xy = shapely.get_coordinates(shapely.simplify(placed, 0.5))
            rings.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in xy[:-1]) + "Z")
    return "".join(rings)


def cell_outline(view: View, polygon: shapely.Polygon, colour: Rgb, told: str) -> Markup:
    """Return an outline as an SVG path in tenths of picture pixels, each step relative to the last."""
    points = np.rint((view.place(shapely.get_coordinates(polygon)[:-1]) + 0.5) * _TENTHS).astype(int)
    steps = np.diff(points, axis=0)
    steps = steps[(steps != 0).any(axis=1)]
    data = f"M{points[0, 0]} {points[0, 1]}l" + " ".join(f"{x} {y}" for x, y in steps.tolist()) + "z"
    return Markup('<path stroke="{}" d="{}"><title>{}</title></path>').format(css(colour), data, told)


def _uri(kind: str, data: NDArray[np.uint8]) -> str:
    return f"data:{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
