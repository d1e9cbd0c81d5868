"""Areas of a slide drawn over its overview, with their names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import shapely

from wsipipe.artifacts import check_writable
from wsipipe.errors import SettingsError
from wsipipe.figure.overlay import View, draw_legend, draw_outlines, draw_scale_bar, look, write_png
from wsipipe.formats.annotations import Annotation
from wsipipe.slide import Slide

OUTPUTS = ".geojson", ".csv"
"""Endings of a table of areas."""
MAX_SIDE = 3000
"""Longest side of the picture in px."""


def write_areas(
    slide: Slide, areas: Sequence[Annotation], out: str | os.PathLike[str], *, named: bool = True, fill: float = 0.0
) -> None:
    """Write a PNG of *areas* over the slide, atomically: outlines in the colours of their classes, names, a legend.

    Parameters
    ----------
    slide : Slide
    areas : sequence of Annotation
    out : path
        Ends in ``.png``.
    named : bool
        Whether to write each area's name in its middle.
    fill : float
        Opacity, 0 to 1, with which areas are filled.

    Raises
    ------
    SettingsError
        When *out* is no PNG.
    OutputError
    """
    _check_png(out)
    view = look(slide, None, MAX_SIDE)
    if fill:
        _fill(view, areas, fill)
    thick = max(1, min(view.rgb.shape[:2]) // 500)
    for area in areas:
        parts = shapely.get_parts(area.shape)
        rings = shapely.get_rings(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
        if len(rings):
            draw_outlines(view, np.array(shapely.polygons(rings), object).reshape(-1), area.colour, thick)
    if named:
        for area in areas:
            _write_name(view, area)
    draw_scale_bar(view)
    legend = {area.kind: area.colour for area in areas}
    strip = int(np.clip(min(view.rgb.shape[:2]) / 40, 12, 60)) * (3 * len(legend) + 3) // 2 if legend else 0
    framed = dataclasses.replace(view, rgb=np.pad(view.rgb, ((strip, 0), (0, 0), (0, 0)), constant_values=255))
    draw_legend(framed, legend)
    write_png(out, framed.rgb)


def check_areas(outputs: Sequence[Path], overlay: Path | None) -> None:
    """Refuse, before any work, outputs that areas cannot be written to, and an overlay that is no PNG.

    Raises
    ------
    SettingsError, OutputError
    """
    for path in outputs:
        if not path.name.lower().endswith(OUTPUTS):
            raise SettingsError(
                f"--output {path}: areas are written to {' or '.join(OUTPUTS)}; give a name that ends so"
            )
        check_writable(path)
    if overlay is not None:
        _check_png(overlay)
        check_writable(overlay)


def _check_png(out: str | os.PathLike[str]) -> None:
    """Raise :class:`SettingsError` unless *out* ends in .png."""
    if not os.fspath(out).lower().endswith(".png"):
        raise SettingsError(f"the overlay is to be {os.fspath(out)}; expected a name that ends in .png")


def _fill(view: View, areas: Sequence[Annotation], opacity: float) -> None:
    painted = view.rgb.copy()
    for area in areas:
        for part in shapely.get_parts(area.shape):
            if isinstance(part, shapely.Polygon):
                rings = [view.place(shapely.get_coordinates(r)) for r in (part.exterior, *part.interiors)]
                cv2.fillPoly(painted, [np.rint(r * 16).astype(np.int32) for r in rings], area.colour, cv2.LINE_AA, 4)
    view.rgb[:] = cv2.addWeighted(view.rgb, 1 - opacity, painted, opacity, 0)


def _write_name(view: View, area: Annotation) -> None:
    """Write an area's name in its middle, as large as fits."""
    x0, y0, x1, y1 = shapely.bounds(area.shape)
    if not np.isfinite(x0):
        return
    room = 0.75 * (x1 - x0) / view.scale[0]
    middle = view.place(np.array([[(x0 + x1) / 2, (y0 + y1) / 2]]))[0]
    for thickness, colour in ((5, (255, 255, 255)), (2, (0, 0, 0))):
        (width, height), _ = cv2.getTextSize(area.name, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
        size = float(np.clip(room / max(1, width), 0.25, 1.6))
        place = round(middle[0] - size * width / 2), round(middle[1] + size * height / 2)
        weight = max(1, round(thickness * size))
        cv2.putText(view.rgb, area.name, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, weight, cv2.LINE_AA)
