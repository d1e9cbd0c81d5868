"""What is segmented: a slide file with its tissue, or a tile store that holds both."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from wsipipe.errors import SettingsError
from wsipipe.raster import Raster, SlideRaster, slide_grid
from wsipipe.settings import GridSettings, SlideSettings, TissueSettings
from wsipipe.slide import fingerprint, open_slide, require_mpp
from wsipipe.store import is_store, open_raster, open_store
from wsipipe.tissue import Tissue, find_tissue
from wsipipe.units import Box, Pair


@dataclass(frozen=True, eq=False)
class Source:
    """Pixels on the working grid, tissue, and what is doubtful about them."""

    raster: Raster
    tissue: Tissue
    base_mpp: Pair

    def close(self) -> None:
        """Close the slide."""
        if isinstance(self.raster, SlideRaster):
            self.raster.close()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the slide: resolution only inferred, another stain, out of focus."""
        return (*self.raster.slide.warnings, *self.tissue.warnings)


def open_source(
    path: str,
    slide: SlideSettings,
    tissue: TissueSettings,
    grid: GridSettings,
    bounds: Box | None = None,
    kept: Iterable[Path] = (),
) -> Source:
    """Open a slide and find its tissue, or open a tile store.

    Stain and focus are judged inside *bounds* (base pixels) where these are given; *kept* files may hold its quality.

    Raises
    ------
    SlideError, StoreError, SettingsError
    """
    if is_store(path):
        raster, store = open_raster(path, slide, grid.target_mpp, grid.allow_upsample), open_store(path)
        _check_tissue(path, tissue, store.tissue)
        return Source(raster, store.tissue, store.base_mpp)
    known = fingerprint(path)  # first: what is read from here on must be of this file
    with ExitStack() as stack:
        opened = stack.enter_context(open_slide(path, slide))
        base_mpp = require_mpp(opened.info, slide)
        working = slide_grid(opened.info, base_mpp, grid.target_mpp, grid.allow_upsample)
        found = find_tissue(opened, base_mpp, tissue, bounds, kept)
        stack.pop_all()  # open from here on; after an error it is closed
    return Source(SlideRaster(opened, working, known), found, base_mpp)


def _check_tissue(path: str, wanted: TissueSettings, kept: Tissue) -> None:
    """Refuse another tissue than the one that a store was made for: only its pixels are there."""
    if wanted.tissue not in ("auto", kept.source):
        raise SettingsError(
            f"--tissue {wanted.tissue}: the store {path} holds the pixels of its own tissue only; "
            "make the store again with `wsipipe tile --tissue ...`, or segment the slide"
        )
