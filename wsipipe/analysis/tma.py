"""The cores of a tissue microarray: found, numbered, and judged on the slide's overview."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wsipipe.analysis.core_grid import Grid, number_cores
from wsipipe.analysis.core_search import candidates, core_diameter, disc_answer, shrunk
from wsipipe.errors import UnsupportedSlide
from wsipipe.settings import TissueSettings
from wsipipe.slide.overview import overview
from wsipipe.slide.protocol import Slide
from wsipipe.tissue.search import outline, tissue_mask
from wsipipe.units import Pair

if TYPE_CHECKING:
    import geopandas

SEARCH_MPP = 8.0
SMALLEST_PIECE_UM2 = 4_000.0
"""Smaller pieces of tissue are dust."""
PX_PER_CORE = 40
"""Diameter of a core in the picture on which cores are searched for and judged."""
LEAST_EXPLAINED = 0.5
"""Share of the slide's tissue that cores have to hold, or it is no microarray."""
MISSING = 0.08
"""A place with a smaller share of tissue holds no core."""
LEAST_SPREAD = 0.8
"""A core whose tissue spans less than this share of its disc (as a convex shape) has lost a part."""
PIECE = 0.08
"""Pieces with at least this share of a core's tissue make it a core in pieces."""

Floats = NDArray[np.float32]


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


def find_cores(slide: Slide, base_mpp: Pair) -> Cores:
    """Return the cores of the microarray on *slide*; neither their size nor the numbers of rows are asked for.

    Tissue is searched for on the overview; the diameter is what most discs of tissue have in common. Cores are numbered
    along the grid, however it is turned (up to 40 degrees) or bent, and places without a core are told.

    Parameters
    ----------
    slide : Slide
    base_mpp : (float, float)
        um per base px.

    Raises
    ------
    UnsupportedSlide
        When the slide does not look like a microarray.
    """
    picture, scale, _ = overview(slide, max(*base_mpp, SEARCH_MPP))
    um = math.sqrt(scale[0] * base_mpp[0] * scale[1] * base_mpp[1])
    mask = tissue_mask(picture, um, TissueSettings(min_tissue_um2=SMALLEST_PIECE_UM2), slide.info.background)
    diameter = core_diameter(mask, um) if mask.any() else None
    if diameter is None:
        raise _no_array(slide, "no disc of tissue is on it")
    fine = max(um, diameter / PX_PER_CORE)
    tissue = shrunk(mask, um, fine)
    answer = disc_answer(tissue, diameter / fine)
    grid = number_cores(candidates(answer, diameter / fine), diameter / fine)
    if grid is None:
        raise _no_array(slide, "no disc of tissue is on it")
    to_base = np.array(slide.info.size) / np.array(tissue.shape[::-1])
    cores, warnings = _judged(tissue, answer, grid, diameter / fine)
    _check_explained(slide, tissue, cores)
    return Cores(_table(cores, to_base, fine, slide), diameter, warnings)


def _no_array(slide: Slide, why: str) -> UnsupportedSlide:
    return UnsupportedSlide(f"{slide.info.path}: no microarray found: {why}; expected round cores of one size in a grid")


@dataclass
class _Core:
    """A place of the grid; coordinates in px of the search picture."""

    row: int
    column: int
    xy: NDArray[np.float64]
    diameter: float
    off: float
    """Distance from where the others say it should be, in steps."""
    tissue: float = 0.0
    share: float = 0.0
    spread: float = 0.0
    stray: float = 0.0
    pieces: int = 0
    shape: shapely.Geometry | None = None

    @property
    def status(self) -> str:
        if self.share < MISSING:
            return "missing"
        return "torn" if self.pieces > 1 or self.spread < LEAST_SPREAD else "whole"

    @property
    def confidence(self) -> float:
        if self.status == "missing":
            return 1 - self.share / MISSING / 2
        place = math.exp(-((self.off / 0.3) ** 2) / 2)
        return place * math.sqrt(min(1.0, self.spread)) * (1 - min(1.0, self.stray))


def _judged(tissue: Floats, answer: Floats, grid: Grid, diameter: float) -> tuple[list[_Core], tuple[str, ...]]:
    """Return the cores at all places of the *grid*, and what there is to say of it."""
    rows, columns = grid.index.max(axis=0) + 1
    index = np.stack([a.ravel() for a in np.mgrid[:rows, :columns]], axis=1)
    guess, known = grid.places(index), {(int(r), int(c)) for r, c in grid.index}
    cores = []
    for (r, c), at in zip(index.tolist(), guess):
        xy = _settled(answer, at, diameter)
        core = _Core(r, c, xy, diameter, float(np.hypot(*(xy - at)) / grid.pitch))
        cores.append(core if (r, c) in known or core.off < 0.3 else _Core(r, c, at, diameter, 0.0))
    _measure(tissue, cores, grid.pitch)
    return _without_empty_lines(cores)


def _settled(answer: Floats, at: NDArray[np.float64], diameter: float) -> NDArray[np.float64]:
    """Return where a core lies that is expected *at* a place: where it answers best, not far from there.

    What answers weakly, as a fragment does, has less say than the place.
    """
    reach = max(1, round(0.45 * diameter))
    x, y = (round(v) for v in at)
    y0, x0 = max(0, y - reach), max(0, x - reach)
    part = answer[y0 : max(y0, y + reach + 1), x0 : max(x0, x + reach + 1)]
    if not part.size:
        return at
    yy, xx = np.mgrid[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]]
    away = ((xx - at[0]) ** 2 + (yy - at[1]) ** 2) / diameter**2
    best = np.unravel_index((part - 1.5 * away).argmax(), part.shape)
    found = np.array([x0 + best[1], y0 + best[0]], np.float64)
    trust = float(np.clip((part[best] - 0.3) / 0.3, 0, 1))
    return np.asarray(trust * found + (1 - trust) * at)


def _measure(tissue: Floats, cores: Sequence[_Core], pitch: float) -> None:
    """Fill in what of the *tissue* each of the *cores* holds: every pixel goes to the nearest core."""
    y, x = np.nonzero(tissue >= 0.5)
    far, nearest = cKDTree([core.xy for core in cores]).query(np.stack([x, y], axis=1))
    owner = np.full(tissue.shape, -1, np.int32)
    owner[y, x] = np.where(far < 0.62 * max(pitch, cores[0].diameter), nearest, -1)
    for k, core in enumerate(cores):
        reach = math.ceil(0.75 * max(pitch, core.diameter))
        x0, y0 = (max(0, math.floor(v) - reach) for v in core.xy)
        box = slice(y0, math.ceil(core.xy[1]) + reach), slice(x0, math.ceil(core.xy[0]) + reach)
        _measure_one(core, owner[box] == k, (x0, y0))


def _measure_one(core: _Core, own: NDArray[np.bool_], corner: tuple[int, int]) -> None:
    """Fill in share, pieces and shape of a *core* from the pixels that are its *own*."""
    radius, area = core.diameter / 2, math.pi * core.diameter**2 / 4
    yy, xx = np.nonzero(own)
    from_middle = np.hypot(xx + corner[0] - core.xy[0], yy + corner[1] - core.xy[1])
    disc = shapely.Point(core.xy + 0.5).buffer(radius, quad_segs=16)
    core.shape, core.tissue = disc, float(len(xx))
    core.share = float((from_middle <= radius).sum()) / area
    if not len(xx):
        return
    gap = max(1, round(0.02 * core.diameter))
    joined = cv2.morphologyEx(own.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((2 * gap + 1, 2 * gap + 1), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    sizes = stats[1:, cv2.CC_STAT_AREA]
    large = 1 + np.flatnonzero(sizes >= PIECE * sizes.sum())
    core.pieces = len(large)
    kept = np.isin(labels, large)
    points = np.stack(np.nonzero(kept)[::-1], axis=1).astype(np.int32)
    core.spread = float(cv2.contourArea(cv2.convexHull(points))) / area if len(points) > 2 else 0.0
    outside = kept & own
    outside[yy[from_middle <= 1.03 * radius], xx[from_middle <= 1.03 * radius]] = False
    core.stray = float(outside.sum()) / area
    if core.stray > 0.02 and core.share >= MISSING:
        stray = shapely.transform(outline(outside, 0.5), lambda xy: xy + np.array(corner))
        core.shape = shapely.union(disc, stray)


def _without_empty_lines(cores: list[_Core]) -> tuple[list[_Core], tuple[str, ...]]:
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
        f"the grid has {n} {what}{'s' * (n > 1)} without any core, taken for a gap between blocks and not counted; name "
        "the cores by a sheet or an edited file if it is to count"
        for n, what in gaps
        if n
    )


def _check_explained(slide: Slide, tissue: Floats, cores: Sequence[_Core]) -> None:
    """Refuse a slide most of whose tissue lies outside of what was taken for cores."""
    explained = sum(core.share * math.pi * core.diameter**2 / 4 for core in cores if core.status != "missing")
    share = explained / max(1.0, float((tissue >= 0.5).sum()))
    if share < LEAST_EXPLAINED:
        raise _no_array(slide, f"discs of one size hold {share:.0%} of its tissue")


def letters(row: int) -> str:
    """Return the name of a row, counted from 0: A to Z, then AA, AB, ..."""
    name = ""
    while row >= 0:
        name, row = chr(ord("A") + row % 26) + name, row // 26 - 1
    return name


def _table(cores: Sequence[_Core], to_base: NDArray[np.float64], um_per_px: float, slide: Slide) -> geopandas.GeoDataFrame:
    """Return the cores as a table in base px."""
    import geopandas

    canvas = shapely.box(0, 0, *slide.info.size)
    shapes = [shapely.intersection(shapely.transform(c.shape, lambda xy: xy * to_base), canvas) for c in cores]
    middles = np.array([core.xy + 0.5 for core in cores]).reshape(-1, 2) * to_base
    columns = {
        "name": [f"{letters(core.row)}-{core.column + 1}" for core in cores],
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
