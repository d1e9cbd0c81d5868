"""``wsipipe.show(slide, cells)``: a slide and its cells in a notebook, to zoom into, in one piece."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from wsipipe.errors import SettingsError
from wsipipe.formats.colours import NO_CLASS, class_colours
from wsipipe.formats.parquet import read_cells
from wsipipe.geometry import intersect, is_empty
from wsipipe.slide import Slide, open_slide
from wsipipe.slide.overview import read_scaled
from wsipipe.units import Box

if TYPE_CHECKING:
    import geopandas

MOST_PIXELS = 2400
"""Longer side of the slide's picture."""
MOST_OUTLINES = 20_000
"""Above this many cells in sight, each is a dot."""
STEPS = 4
"""Outlines are kept to a quarter of a base pixel."""
RAMP = ((43, 98, 245), (22, 196, 224), (110, 228, 96), (250, 208, 50), (232, 62, 28))
"""Colours of a measurement, from low to high."""
TOLD = ("class", "probability", "area_um2", "eccentricity")
"""What the tip at a cell tells, as far as the table has it."""

Cells = Any


class Shown:
    """A slide and its cells, as notebooks display them; :meth:`save` writes the same as a page."""

    def __init__(self, page: str, height: int) -> None:
        self._page, self._height = page, height

    def _repr_html_(self) -> str:
        inner = html.escape(self._page, quote=True)
        style = f"width:100%;height:{self._height}px;border:1px solid #ccc;border-radius:8px"
        return f'<iframe srcdoc="{inner}" sandbox="allow-scripts" style="{style}" title="slide and cells"></iframe>'

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a page that opens in any browser, atomically; raise OutputError when it cannot be written."""
        from wsipipe.artifacts import atomic_write

        with atomic_write(path, "w") as file:
            file.write(self._page)


def show(
    slide: str | os.PathLike[str] | Slide,
    cells: geopandas.GeoDataFrame | str | os.PathLike[str] | None = None,
    *,
    box: Box | None = None,
    by: str = "class",
    height: int = 560,
) -> Shown:
    """Return *slide* with its *cells* for a notebook: wheel to zoom, drag to move, point at a cell to read of it.

    Parameters
    ----------
    slide : path, URL or Slide
    cells : GeoDataFrame or path, optional
        In base pixels, as :func:`wsipipe.segment` returns them, or a ``.parquet``.
    box : (x0, y0, x1, y1), optional
        The part to show, in base pixels; default: all of it, in coarser pixels if it is large.
    by : str
        Colour by ``class``, or by any column of numbers (from its 2nd to its 98th percentile).
    height : int
        Of the frame in the notebook, in its pixels.

    Raises
    ------
    SettingsError
        When *box* lies outside the slide, or there is no column *by*.
    SlideError, StoreError
    """
    if not isinstance(slide, Slide):
        with open_slide(slide) as opened:
            return show(opened, cells, box=box, by=by, height=height)
    whole: Box = (0, 0, *slide.info.size)
    part = intersect(box, whole) if box else whole
    if is_empty(part):
        raise SettingsError(
            f"box is {box}; expected a part of the slide's {slide.info.size[0]} x {slide.info.size[1]} px"
        )
    about = {"box": part, "mpp": slide.info.mpp[0] if slide.info.mpp else None, "picture": _picture(slide, part)}
    told = _told(cells, part, by) if cells is not None else {"cells": [], "legend": []}
    page = (resources.files("wsipipe.view.notebook") / "show.html").read_text(encoding="utf-8")
    data = json.dumps({**about, **told}, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return Shown(page.replace("/*DATA*/null", data, 1), height)


def _picture(slide: Slide, box: Box) -> str:
    """Return a part of the slide as a data URL."""
    width, height = box[2] - box[0], box[3] - box[1]
    scale = max(1.0, max(width, height) / MOST_PIXELS)
    size = max(1, round(width / scale)), max(1, round(height / scale))
    pixels = read_scaled(slide, box, (width / size[0], height / size[1]), size)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _told(cells: Cells, box: Box, by: str) -> dict[str, Any]:
    """Return outlines or centres of the cells in *box*, their colours and what is said of them."""
    frame = read_cells(cells, box) if isinstance(cells, (str, os.PathLike)) else cells
    if by not in frame.columns:
        raise SettingsError(f"there is no column {by!r}; expected class, or one of {', '.join(_numbers(frame))}")
    frame = frame[shapely.box(*box).intersects(frame.geometry.to_numpy())]
    colours, legend = _colours(frame, by)
    columns = [name for name in dict.fromkeys((*TOLD, by)) if name in frame.columns]
    tips = [[_word(value) for value in row] for row in frame[columns].itertuples(index=False)]
    shapes = frame.geometry.to_numpy()
    dots = len(frame) > MOST_OUTLINES
    points = [_flat(shape, box, dots) for shape in shapes]
    return {"cells": list(zip(points, colours, tips, strict=True)), "legend": legend, "columns": columns, "dots": dots}


def _flat(shape: shapely.Geometry, box: Box, dot: bool) -> list[int]:
    """Return a centre or an outline as x, y, x, y, ... in steps of a base pixel, counted from the box."""
    xy = shapely.get_coordinates(shapely.centroid(shape) if dot else _ring(shape))
    flat: list[int] = np.rint((xy - box[:2]) * STEPS).astype(int).ravel().tolist()
    return flat


def _ring(shape: shapely.Geometry) -> Any:
    parts = shapely.get_parts(shape)
    largest = parts[int(np.argmax(shapely.area(parts)))] if len(parts) > 1 else shape
    return shapely.get_exterior_ring(largest)


def _colours(frame: Cells, by: str) -> tuple[list[str], list[list[str]]]:
    """Return the colour of each cell, and a legend of name and colour."""
    if by not in _numbers(frame):
        names = [value if isinstance(value, str) else "" for value in frame[by]]
        known = class_colours(sorted({name for name in names if name}))
        counts = {name: names.count(name) for name in [*known, ""]}
        legend = [[f"{name or 'no class'}: {n:,}", _css(known.get(name, NO_CLASS))] for name, n in counts.items() if n]
        return [_css(known.get(name, NO_CLASS)) for name in names], legend
    values = frame[by].to_numpy(np.float64)
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, (0.02, 0.98)).tolist() if len(finite) else (0.0, 1.0)
    share = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    colours = [_css(_ramp(at)) if np.isfinite(at) else _css(NO_CLASS) for at in share]
    return colours, [[f"{by} {low:.3g}", _css(RAMP[0])], [f"{high:.3g}", _css(RAMP[-1])]]


def _ramp(at: float) -> tuple[int, int, int]:
    place = at * (len(RAMP) - 1)
    first = min(int(place), len(RAMP) - 2)
    mixed: NDArray[np.float64] = np.array(RAMP[first]) + (place - first) * np.subtract(RAMP[first + 1], RAMP[first])
    r, g, b = mixed.round().astype(int).tolist()
    return r, g, b


def _css(rgb: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in rgb)


def _word(value: Any) -> str:
    if isinstance(value, str) or value is None:
        return value or ""
    return f"{value:.3g}" if np.isfinite(value) else ""


def _numbers(frame: Cells) -> list[str]:
    return [name for name, kind in frame.dtypes.items() if getattr(kind, "kind", "") in "iuf"]
