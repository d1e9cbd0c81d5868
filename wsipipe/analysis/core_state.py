"""What there is of a core of a microarray: its tissue, its pieces, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wsipipe.quality.shapes import outline

MISSING = 0.08
"""A place with a smaller share of tissue holds no core."""
LEAST_SPREAD = 0.8
"""A core whose tissue spans less than this share of its disc (as a convex shape) has lost a part."""
PIECE = 0.08
"""Pieces with at least this share of a core's tissue make it a core in pieces."""

Floats = NDArray[np.float32]


@dataclass
class Place:
    """A place where a core is or should be; coordinates in px of the picture in which cores are searched for.

    Attributes
    ----------
    row, column : int
        From 0; -1 where they are not known.
    xy : float (2,)
    diameter : float
    off : float
        Distance from where the other cores say that it should be, in steps of the grid.
    shape : shapely.Geometry, optional
        As drawn by hand; else the disc, with what has drifted out of it.
    tissue : float
        Pixels of tissue that are nearer to it than to any other.
    share : float
        Tissue inside, as a share of its disc or drawn shape.
    spread : float
        Convex hull of its large pieces, as a share of the disc.
    stray : float
        What of them lies outside, as a share of the disc.
    pieces : int
    name : str
        What a person called it; "" for its place in the grid.
    said_missing, drawn : bool
        Whether a person says that it is missing; whether a person drew it.
    """

    row: int
    column: int
    xy: NDArray[np.float64]
    diameter: float
    off: float = 0.0
    shape: shapely.Geometry | None = None
    name: str = ""
    tissue: float = 0.0
    share: float = 0.0
    spread: float = 0.0
    stray: float = 0.0
    pieces: int = 0
    said_missing: bool = False
    drawn: bool = False

    @property
    def status(self) -> str:
        """Return whole, torn or missing."""
        if self.said_missing or self.share < MISSING:
            return "missing"
        return "torn" if self.pieces > 1 or self.spread < LEAST_SPREAD else "whole"

    @property
    def confidence(self) -> float:
        """Return from 0 to 1 how much speaks for it: its place, how much of the disc it spans, nothing outside."""
        if self.drawn:
            return 1.0
        if self.status == "missing":
            return 1 - self.share / MISSING / 2
        place = math.exp(-((self.off / 0.3) ** 2) / 2)
        return place * math.sqrt(min(1.0, self.spread)) * (1 - min(1.0, self.stray))


def measure_places(tissue: Floats, cores: Sequence[Place], pitch: float) -> None:
    """Fill in what of the *tissue* each of the *cores* holds: every pixel goes to the nearest core."""
    y, x = np.nonzero(tissue >= 0.5)
    far, nearest = cKDTree([core.xy for core in cores]).query(np.stack([x, y], axis=1))
    owner = np.full(tissue.shape, -1, np.int32)
    owner[y, x] = np.where(far < 0.62 * max(pitch, cores[0].diameter), nearest, -1)
    for k, core in enumerate(cores):
        reach = math.ceil(0.75 * max(pitch, core.diameter))
        x0, y0 = (max(0, math.floor(v) - reach) for v in core.xy)
        box = slice(y0, math.ceil(core.xy[1]) + reach), slice(x0, math.ceil(core.xy[0]) + reach)
        shape = core.shape
        _measure_one(core, owner[box] == k, (x0, y0))
        core.shape = shape if core.drawn else core.shape


def _measure_one(core: Place, own: NDArray[np.bool_], corner: tuple[int, int]) -> None:
    """Fill in share, pieces and shape of a *core* from the pixels that are its *own*."""
    radius, area = core.diameter / 2, math.pi * core.diameter**2 / 4
    yy, xx = np.nonzero(own)
    from_middle = np.hypot(xx + corner[0] - core.xy[0], yy + corner[1] - core.xy[1])
    disc = shapely.Point(core.xy + 0.5).buffer(radius, quad_segs=16)
    core.shape, core.tissue = disc, float(len(xx))
    core.share = float((from_middle <= radius).sum()) / area
    if not len(xx):
        return
    joined = cv2.morphologyEx(own.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
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


def settled(answer: Floats, at: NDArray[np.float64], diameter: float) -> NDArray[np.float64]:
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
