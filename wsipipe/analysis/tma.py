"""The cores of a tissue microarray: found, numbered, and judged on the slide's overview."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.analysis.core_grid import Grid, number_cores
from wsipipe.analysis.core_search import candidates, core_diameter, disc_answer, shrunk
from wsipipe.analysis.core_state import Place, measure_places, settled
from wsipipe.errors import UnsupportedSlide
from wsipipe.settings import TissueSettings
from wsipipe.slide.overview import overview
from wsipipe.slide.protocol import Slide
from wsipipe.tissue.search import tissue_mask
from wsipipe.units import Pair

if TYPE_CHECKING:
    import geopandas

SEARCH_MPP = 8.0
SMALLEST_PIECE_UM2 = 4_000.0
"""Smaller pieces of tissue are dust."""
PX_PER_CORE = 40
"""Diameter of a core in the picture on which cores are searched for and judged."""
LEAST_EXPLAINED = 0.6
"""Share of the slide's tissue that cores have to hold, or it is no microarray."""
ROUND, LEAST_ROUND = 0.8, 0.25
"""A core that answers so to its disc is round; at least this share of the cores has to be."""
Floats = NDArray[np.float32]


class DrawnCore(NamedTuple):
    """A core as a person says that it is: name, outline in base px, and whether it is missing."""

    name: str
    shape: shapely.Geometry
    missing: bool = False


@dataclass(frozen=True)
class Cores:
    """The cores of a microarray.

    Attributes
    ----------
    table : GeoDataFrame
        One row per place of the grid, by row and column. ``name`` (as QuPath gives it: A-1), ``row`` (A, B, ...),
        ``column`` (1, 2, ...), ``status`` (whole, torn, missing), ``missing``, ``confidence`` (0 to 1), ``pieces``,
        ``tissue_share`` (of the disc), ``tissue_um2``, ``diameter_um``, ``x`` and ``y`` (middle, base px), and
        ``geometry`` (base px): the disc, with what has drifted out of it.
    diameter_um : float
        Of a core, as estimated.
    warnings : tuple of str
    """

    table: geopandas.GeoDataFrame
    diameter_um: float
    warnings: tuple[str, ...] = ()


def find_cores(slide: Slide, base_mpp: Pair, drawn: Sequence[DrawnCore] = ()) -> Cores:
    """Return the cores of the microarray on *slide*; neither their size nor the numbers of rows are asked for.

    Tissue is searched for on the overview; the diameter is what most discs of tissue have in common. Cores are numbered
    along the grid, however it is turned (up to 40 degrees) or bent, and places without a core are told.

    Parameters
    ----------
    slide : Slide
    base_mpp : (float, float)
        µm per base px.
    drawn : sequence of DrawnCore
        Cores that a person has corrected: they are taken as they are, only what they hold is measured.

    Raises
    ------
    UnsupportedSlide
        When the slide does not look like a microarray.
    """
    picture, scale, gaps = overview(slide, max(*base_mpp, SEARCH_MPP))
    um = math.sqrt(scale[0] * base_mpp[0] * scale[1] * base_mpp[1])
    mask = tissue_mask(picture, um, TissueSettings(min_tissue_um2=SMALLEST_PIECE_UM2), slide.info.background)
    diameter = _drawn_diameter(drawn, base_mpp) if drawn else core_diameter(mask, um) if mask.any() else None
    if diameter is None:
        raise _no_array(slide, "no disc of tissue is on it")
    fine = max(um, diameter / PX_PER_CORE)
    tissue = shrunk(mask, um, fine)
    to_base = np.array(slide.info.size) / np.array(tissue.shape[::-1])
    if drawn:
        warnings: tuple[str, ...] = ()
        cores = _as_drawn(drawn, to_base, base_mpp[0] / fine)
        measure_places(tissue, cores, diameter / fine)
    else:
        answer = disc_answer(tissue, diameter / fine)
        grid = number_cores(candidates(answer, diameter / fine), diameter / fine)
        if grid is None:
            raise _no_array(slide, "no disc of tissue is on it")
        if (grid.weight >= ROUND).mean() < LEAST_ROUND:
            raise _no_array(slide, f"too few of its {len(grid.weight)} pieces of tissue are round")
        cores, warnings = _judged(tissue, answer, grid, diameter / fine)
        _check_explained(slide, tissue, cores)
    return Cores(_table(cores, to_base, fine, slide), diameter, (*warnings, *gaps.told(base_mpp, "glass")))


def _drawn_diameter(drawn: Sequence[DrawnCore], base_mpp: Pair) -> float:
    """Return the median diameter in µm of discs with the areas of *drawn* cores."""
    areas = [shapely.area(core.shape) * base_mpp[0] * base_mpp[1] for core in drawn]
    return 2 * math.sqrt(float(np.median(areas)) / math.pi)


def _as_drawn(drawn: Sequence[DrawnCore], to_base: NDArray[np.float64], px_per_base: float) -> list[Place]:
    """Return drawn cores as places of the search picture; a name such as B-3 tells row and column."""
    cores = []
    for core in drawn:
        shape = shapely.transform(core.shape, lambda xy: xy / to_base)
        middle = np.array(shapely.centroid(shape).coords[0]) - 0.5
        diameter = 2 * math.sqrt(shapely.area(core.shape) / math.pi) * px_per_base
        row, column = place_of(core.name) or (-1, -1)
        place = Place(row, column, middle, diameter, shape=shape, name=core.name, drawn=True)
        place.said_missing = core.missing
        cores.append(place)
    return cores


def _no_array(slide: Slide, why: str) -> UnsupportedSlide:
    return UnsupportedSlide(
        f"{slide.info.path}: no microarray found: {why}; expected round cores of one size in a grid"
    )


def _judged(tissue: Floats, answer: Floats, grid: Grid, diameter: float) -> tuple[list[Place], tuple[str, ...]]:
    """Return the cores at all places of the *grid*, and what there is to say of it."""
    rows, columns = grid.index.max(axis=0) + 1
    index = np.stack([a.ravel() for a in np.mgrid[:rows, :columns]], axis=1)
    guess, known = grid.places(index), {(int(r), int(c)) for r, c in grid.index}
    cores = []
    for (r, c), at in zip(index.tolist(), guess):
        xy = settled(answer, at, diameter)
        core = Place(r, c, xy, diameter, float(np.hypot(*(xy - at)) / grid.pitch))
        cores.append(core if (r, c) in known or core.off < 0.3 else Place(r, c, at, diameter, 0.0))
    measure_places(tissue, cores, grid.pitch)
    return _without_empty_lines(cores)


def _without_empty_lines(cores: list[Place]) -> tuple[list[Place], tuple[str, ...]]:
    """Return the cores without rows and columns that hold none, numbered anew, and a line on those inside the grid."""
    held = [core for core in cores if core.status != "missing"]
    if not held:
        return [], ()
    rows, columns = sorted({core.row for core in held}), sorted({core.column for core in held})
    kept = [core for core in cores if core.row in rows and core.column in columns]
    gaps = [(rows[-1] - rows[0] + 1 - len(rows), "row"), (columns[-1] - columns[0] + 1 - len(columns), "column")]
    for core in kept:
        core.row, core.column = rows.index(core.row), columns.index(core.column)
    return kept, tuple(
        f"the grid has {n} {what}{'s' * (n > 1)} without any core, taken for a gap between blocks and not counted; "
        "name the cores by a sheet or an edited file if it is to count"
        for n, what in gaps
        if n
    )


def _check_explained(slide: Slide, tissue: Floats, cores: Sequence[Place]) -> None:
    """Refuse a slide most of whose tissue lies outside of what was taken for cores."""
    explained = sum(core.share * math.pi * core.diameter**2 / 4 for core in cores if core.status != "missing")
    share = explained / max(1.0, float((tissue >= 0.5).sum()))
    if share < LEAST_EXPLAINED:
        raise _no_array(slide, f"discs of one size hold {share:.0%} of its tissue")


def place_of(name: str) -> tuple[int, int] | None:
    """Return row and column, from 0, of a core called as in A-1 or AB-12; None of another name."""
    match = re.fullmatch(r"([A-Z]{1,2})-?([1-9][0-9]{0,2})", name.strip().upper())
    if match is None:
        return None
    row = 0
    for letter in match[1]:
        row = row * 26 + ord(letter) - ord("A") + 1
    return row - 1, int(match[2]) - 1


def letters(row: int) -> str:
    """Return the name of a row, counted from 0: A to Z, then AA, AB, ..."""
    name = ""
    while row >= 0:
        name, row = chr(ord("A") + row % 26) + name, row // 26 - 1
    return name


def _table(
    cores: Sequence[Place], to_base: NDArray[np.float64], um_per_px: float, slide: Slide
) -> geopandas.GeoDataFrame:
    """Return the cores as a table in base px."""
    import geopandas

    canvas = shapely.box(0, 0, *slide.info.size)
    shapes = [shapely.intersection(shapely.transform(c.shape, lambda xy: xy * to_base), canvas) for c in cores]
    middles = np.array([core.xy + 0.5 for core in cores]).reshape(-1, 2) * to_base
    columns = {
        "name": [core.name or f"{letters(core.row)}-{core.column + 1}" for core in cores],
        "row": [letters(core.row) for core in cores],
        "column": [core.column + 1 for core in cores],
        "status": [core.status for core in cores],
        "missing": [core.status == "missing" for core in cores],
        "confidence": np.round([core.confidence for core in cores], 3),
        "pieces": [core.pieces if core.status != "missing" else 0 for core in cores],
        "tissue_share": np.round([core.share for core in cores], 3),
        "tissue_um2": np.round([core.tissue * um_per_px**2 for core in cores], 1),
        "diameter_um": np.round([core.diameter * um_per_px for core in cores], 1),
        "x": middles[:, 0],
        "y": middles[:, 1],
    }
    return geopandas.GeoDataFrame(columns, geometry=np.array(shapes, object))
