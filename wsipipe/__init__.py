"""Cells of whole-slide images as polygons.

>>> import wsipipe
>>> cells = wsipipe.segment("slide.svs")  # doctest: +SKIP

The names below are loaded on first use, so that ``import wsipipe`` is instant.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from wsipipe._version import __version__ as __version__

if TYPE_CHECKING:
    from wsipipe.errors import WsipipeError as WsipipeError
    from wsipipe.segmentation.run import segment as segment
    from wsipipe.settings import CellSettings as CellSettings
    from wsipipe.settings import GridSettings as GridSettings
    from wsipipe.settings import RunSettings as RunSettings
    from wsipipe.settings import SlideSettings as SlideSettings
    from wsipipe.settings import TissueSettings as TissueSettings
    from wsipipe.slide import open_slide as open_slide
    from wsipipe.view.notebook.show import show as show

_HOME = {
    "segment": "wsipipe.segmentation.run",
    "show": "wsipipe.view.notebook.show",
    "open_slide": "wsipipe.slide",
    "WsipipeError": "wsipipe.errors",
    "SlideSettings": "wsipipe.settings",
    "TissueSettings": "wsipipe.settings",
    "GridSettings": "wsipipe.settings",
    "CellSettings": "wsipipe.settings",
    "RunSettings": "wsipipe.settings",
}

__all__ = [  # noqa: RUF022 - in the order of use
    "segment",
    "show",
    "open_slide",
    "SlideSettings",
    "TissueSettings",
    "GridSettings",
    "CellSettings",
    "RunSettings",
    "WsipipeError",
    "__version__",
]


def _let_numba_cache() -> None:
    """Give numba a folder for what it compiles, where neither the package nor the user's home can be written to.

    It keeps compiled code beside the modules, or else in the user's cache, and does not load at all without either.
    """
    places = os.path.dirname(__file__), os.path.expanduser("~")
    if "NUMBA_CACHE_DIR" in os.environ or any(os.access(place, os.W_OK) for place in places):
        return
    from wsipipe.artifacts.system import private_folder

    os.environ["NUMBA_CACHE_DIR"] = private_folder()


_let_numba_cache()


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module 'wsipipe' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
