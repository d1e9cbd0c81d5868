"""Which regions of slides and pictures are looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsipipe.errors import SettingsError
from wsipipe.figure.regions import MARGIN, Region
from wsipipe.geometry import Grid
from wsipipe.raster import SlideRaster, slide_grid
from wsipipe.settings import GridSettings, SlideSettings, TissueSettings
from wsipipe.slide import Slide, open_slide, require_mpp
from wsipipe.tissue import find_tissue
from wsipipe.units import Pair


@dataclass(frozen=True)
class Places:
    """Where to look.

    Attributes
    ----------
    sources : tuple of str
        Slides, pictures, or corpora.
    at : tuple of (float, float)
        Centres of regions in level-0 pixels, of the only source.
    indices : tuple of int
        Patches of a corpus, the only source.
    size : int
        Side of a region, at the working resolution.
    """

    sources: tuple[str, ...]
    at: tuple[Pair, ...] = ()
    indices: tuple[int, ...] = ()
    size: int = 256
    slide: SlideSettings = field(default_factory=SlideSettings)
    grid: GridSettings = field(default_factory=GridSettings)


def regions_of_slide(source: str, places: Places, mpp: float, tell: Callable[[str], None]) -> list[Region]:
    """Return regions of a slide around given places, or around one chosen here, at *mpp* if no other is asked for.

    Raises
    ------
    SettingsError
        When a place lies outside.
    SlideError
    """
    if places.indices:
        raise SettingsError(f"{source} is no corpus; give --at x,y in place of --index")
    with open_slide(source, places.slide) as slide:
        stated = slide.info.mpp is not None or slide.info.backend != "picture"
        if not stated:
            tell(f"{source} states no resolution: taken pixel for pixel, as if at {mpp:g} µm/px (--mpp says it)")
        grid = _grid(slide, places, mpp) if stated else slide_grid(slide.info, (mpp, mpp), None)
        raster, name = SlideRaster(slide, grid, fingerprint=""), Path(source).name
        centres = places.at or (_chosen(slide, grid),)
        found = [_around(raster, centre, places.size, name, stated) for centre in centres]
        bad = [f"{len(raster.bad)} areas cannot be read, and are shown in the background colour"] if raster.bad else []
        for text in (*slide.info.warnings, *bad):
            tell(f"warning: {source}: {text}")
        return found


def _grid(slide: Slide, places: Places, mpp: float) -> Grid:
    wanted = places.grid.target_mpp or mpp
    base_mpp = require_mpp(slide.info, places.slide)
    return slide_grid(slide.info, base_mpp, wanted, places.grid.allow_upsample)


def _chosen(slide: Slide, grid: Grid) -> Pair:
    """Return where to look when nothing is said: the middle of a picture, a place inside a slide's largest tissue."""
    width, height = slide.info.size
    if slide.info.backend == "picture":
        return width / 2, height / 2
    base_mpp = grid.mpp[0] / grid.scale[0], grid.mpp[1] / grid.scale[1]
    polygons = find_tissue(slide, base_mpp, TissueSettings()).polygons
    if not polygons:
        return width / 2, height / 2
    point = max(polygons, key=lambda polygon: polygon.area).representative_point()
    return float(point.x), float(point.y)


def _around(raster: SlideRaster, centre: Pair, size: int, name: str, stated: bool) -> Region:
    """Return the region around *centre* (base pixels), moved inside the slide where it would stick out."""
    (width, height), info = raster.grid.size, raster.slide
    if not (0 <= centre[0] < info.size[0] and 0 <= centre[1] < info.size[1]):
        raise SettingsError(
            f"--at {centre[0]:g},{centre[1]:g} lies outside {info.path}, which has {info.size[0]} x {info.size[1]} px"
        )
    corner = [
        max(0, min(round(c / s) - size // 2, limit - size)) if limit >= size else (limit - size) // 2
        for c, s, limit in zip(centre, raster.grid.scale, (width, height))
    ]
    x, y = corner
    window = raster.read((x - MARGIN, y - MARGIN, x + size + MARGIN, y + size + MARGIN))
    scale = raster.grid.scale
    label = f"at {(x + size / 2) * scale[0]:.0f},{(y + size / 2) * scale[1]:.0f}: {name}"
    region = Region(label, window, (x * scale[0], y * scale[1]), scale, raster.grid.mpp)
    return region if stated else replace(region, mpp=None)
