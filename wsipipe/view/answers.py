"""What the viewer answers to each address: the page, tiles of the slide, and the cells of a window."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from wsipipe.errors import SettingsError
from wsipipe.quality.map import Quality
from wsipipe.slide import Slide
from wsipipe.stain.unmix import StainVectors, vectors_of
from wsipipe.view import areas, edits, layer
from wsipipe.view.areas import Area, Areas
from wsipipe.view.editing import Editing
from wsipipe.view.index import CellIndex
from wsipipe.view.pyramid import TILE, Pyramid
from wsipipe.view.replies import KEEP, STEADY, answer, as_json, number
from wsipipe.view.wanted import Wanted

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

AT_ONCE = 2
"""Tiles of cells made at a time: far ones pass through many cells."""
MOST_DIGITS = 9
"""Digits of a number in an address."""
MOST_TEXT = 2000
"""Characters of conditions in an address."""
ASSETS = {
    "viewer.css": "text/css",
    "viewer.js": "text/javascript",
    "cells.js": "text/javascript",
    "panel.js": "text/javascript",
    "filters.js": "text/javascript",
    "edit.js": "text/javascript",
    "regions.js": "text/javascript",
    "openseadragon/openseadragon.min.js": "text/javascript",
    "openseadragon/LICENSE.txt": "text/plain",
}


@dataclass(frozen=True)
class Shown:
    """What is shown.

    Attributes
    ----------
    slide : Slide
    name : str
        Of the slide.
    index : CellIndex, optional
    warnings : tuple of str
    areas : tuple of Area
        Annotations, or what is wrong with the slide.
    vectors : StainVectors, optional
        Its stains; by default those that the cells were measured by.
    editing : Editing, optional
        Corrections of the cells, and regions over them, where these may be made.
    """

    slide: Slide
    name: str
    index: CellIndex | None = None
    warnings: tuple[str, ...] = ()
    areas: tuple[Area, ...] = ()
    vectors: StainVectors | None = None
    editing: Editing | None = None

    @property
    def stains(self) -> StainVectors | None:
        """The stains that can be shown alone, None where nobody knows them."""
        told = self.index.about.get("stain_vectors") if self.index is not None else None
        return self.vectors or (vectors_of(told) if told else None)


def routes(shown: Shown) -> list[Any]:
    """Return the addresses that *shown* answers to, for Starlette."""
    from starlette.convertors import IntegerConvertor, register_url_convertor
    from starlette.routing import Route

    class Short(IntegerConvertor):
        """A whole number that arithmetic takes."""

        regex = f"[0-9]{{1,{MOST_DIGITS}}}"

    register_url_convertor("short", Short())
    pyramid, index = Pyramid(shown.slide, shown.stains), shown.index
    handlers = _Handlers(shown, pyramid)
    found = [
        Route("/", handlers.page),
        Route("/assets/{name:path}", handlers.asset),
        Route("/info", handlers.info),
        Route("/tiles/{level:short}/{column:short}_{row:short}.jpg", handlers.tile),
        Route("/stains/{stain:short}/{level:short}/{column:short}_{row:short}.jpg", handlers.stain),
        Route("/areas/{level:short}/{column:short}_{row:short}.png", handlers.area),
    ]
    if index is not None:
        found += [
            Route("/cells/{level:short}/{column:short}_{row:short}", handlers.cells),
            Route("/cell", handlers.cell),
            Route("/density.png", handlers.density),
            Route("/spread/{measure}", handlers.spread),
            Route("/histogram", handlers.histogram),
            Route("/count", handlers.count),
        ]
    if shown.editing is not None:
        found += edits.routes(shown.editing)
    return found


class _Handlers:
    """Answers to requests. Starlette runs them in threads."""

    def __init__(self, shown: Shown, pyramid: Pyramid) -> None:
        self._shown, self._pyramid = shown, pyramid
        self._turn = threading.Semaphore(AT_ONCE)
        self._areas = Areas(shown.areas, pyramid.size, pyramid.max_level)
        package = resources.files("wsipipe.view") / "assets"
        self._page = (package / "index.html").read_bytes()
        self._assets = {name: package.joinpath(*name.split("/")).read_bytes() for name in ASSETS}

    @property
    def _index(self) -> CellIndex:
        assert self._shown.index is not None
        return self._shown.index

    def page(self, request: Request) -> Response:
        return answer(self._page, "text/html", STEADY)

    def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        return answer(self._assets[name], ASSETS[name]) if name in self._assets else answer(None)

    def info(self, request: Request) -> Response:
        return as_json(about(self._shown, self._pyramid) | {"areas": self._areas.kinds(), "area_tile": areas.TILE})

    def tile(self, request: Request) -> Response:
        at = request.path_params
        return answer(self._pyramid.tile(at["level"], at["column"], at["row"]), "image/jpeg")

    def stain(self, request: Request) -> Response:
        at = request.path_params
        return answer(self._pyramid.tile(at["level"], at["column"], at["row"], at["stain"]), "image/jpeg")

    def area(self, request: Request) -> Response:
        at = request.path_params
        with self._turn:
            data = self._areas.tile(at["level"], at["column"], at["row"], _hidden(request.query_params))
        return answer(data, "image/png")

    def cells(self, request: Request) -> Response:
        at, index = request.path_params, self._index
        deepest = self._pyramid.max_level + layer.DEEPER
        measure = request.query_params.get("by", "")
        if not 0 <= at["level"] <= deepest or (measure and measure not in index.measures):
            return answer(None)
        scale = 2.0 ** (self._pyramid.max_level - at["level"])
        with self._turn:
            wanted = self._wanted(request)
            data = wanted and layer.tile_bytes(index, scale, at["column"], at["row"], wanted, measure)
        return answer(data, "application/octet-stream")

    def cell(self, request: Request) -> Response:
        x, y = (number(request.query_params.get(name)) for name in ("x", "y"))
        wanted = self._wanted(request)
        if x is None or y is None or wanted is None:
            return answer(None)
        return as_json(self._index.at(x, y, wanted))

    def density(self, request: Request) -> Response:
        wanted = self._wanted(request)
        if wanted is None:
            return answer(None)
        heat = layer.density(self._index, wanted)
        told = {"x-width": f"{heat.width:.3f}", "x-height": f"{heat.height:.3f}", "x-top": f"{heat.top:.1f}"}
        return answer(heat.png, "image/png", KEEP | told)

    def spread(self, request: Request) -> Response:
        measure = request.path_params["measure"]
        if measure not in self._index.measures:
            return answer(None)
        return as_json(self._index.spread(measure))

    def histogram(self, request: Request) -> Response:
        name = request.query_params.get("of", "")
        return as_json(self._index.histogram(name)) if name in self._index.filters else answer(None)

    def count(self, request: Request) -> Response:
        """Return how many cells are wanted, or one line that says what is wrong with the conditions."""
        try:
            return as_json({"cells": self._index.count(_asked(request.query_params)), "of": self._index.cells})
        except SettingsError as error:
            return as_json({"error": str(error)})

    def _wanted(self, request: Request) -> Wanted | None:
        """Return which cells a request wants; None where its conditions are none."""
        wanted = _asked(request.query_params)
        return wanted if self._index.understands(wanted.where) else None


def about(shown: Shown, pyramid: Pyramid) -> dict[str, Any]:
    """Return what the page has to know before it draws anything."""
    info, index = shown.slide.info, shown.index
    cells: dict[str, Any] = {}
    if index is not None:
        model = index.about.get("model") or {}
        cells = {
            "cells": index.cells,
            "classes": index.classes(),
            "measures": list(index.measures),
            "filters": list(index.filters),
            "flags": list(index.flags),
            "qualities": [kind.label for kind in Quality],
            "editable": shown.editing is not None,
            "revision": index.revision,
            "bad": index.about.get("bad_boxes") or [],
            "model": model.get("name", ""),
            "cell_tile": layer.TILE,
            "deeper": layer.DEEPER,
            "diameter": round(index.diameter_px, 2),
        }
    return {
        "name": shown.name,
        "size": list(info.size),
        "mpp": list(info.mpp) if info.mpp else (index.about["mpp"] if index else None),
        "bounds": list(info.bounds) if info.bounds else None,
        "tile": TILE,
        "max_level": pyramid.max_level,
        "warnings": list(shown.warnings),
        "stains": [name for name, _ in shown.stains.stains] if shown.stains else [],
    } | cells


def _asked(query: Mapping[str, str]) -> Wanted:
    """Return which cells ``?hide=0,3&where=area_um2>=20`` asks for."""
    return Wanted(_hidden(query), query.get("where", "")[:MOST_TEXT])


def _hidden(query: Mapping[str, str]) -> frozenset[int]:
    """Return the classes that ``?hide=0,3`` names; what is no number is passed over."""
    parts = query.get("hide", "").split(",")
    return frozenset(int(part) for part in parts if part.isascii() and part.isdigit() and len(part) <= MOST_DIGITS)
