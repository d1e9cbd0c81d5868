"""What is on a phantom slide: picture, instance map and polygons of any region, worked out on demand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.geometry import grow, intersect, is_empty
from wsipipe.phantom.microarray import Core
from wsipipe.phantom.nuclei import NUCLEUS, PER_SITE, REACH, nuclei_of_sites, tissue_field
from wsipipe.phantom.render import (
    DYES,
    PALE,
    SOFT,
    develop,
    nodes,
    outlines,
    paint_nuclei,
    paint_tissue,
    textures,
    tissue_nodes,
)
from wsipipe.settings import PhantomSettings
from wsipipe.units import Box

LARGEST_UM = 8.0
"""No part of a nucleus is farther from its centre."""
VERTICES = 64


class PhantomTruth:
    """What is on a phantom slide, worked out region by region; nothing grows with the slide.

    Parameters
    ----------
    settings : PhantomSettings

    Attributes
    ----------
    settings : PhantomSettings
    bad : tuple of Box
        Areas in base px whose tile data were cut short, filled in by :func:`write_phantom`.
    cores : tuple of Core
        Of a microarray; its tissue is what they hold.
    """

    def __init__(self, settings: PhantomSettings, bad: tuple[Box, ...] = (), cores: Sequence[Core] = ()) -> None:
        self.settings, self.bad, self.cores = settings, bad, tuple(cores)
        mpp = settings.drawn_mpp
        self.scanned: Box = settings.bounds or (0, 0, settings.width, settings.height)
        self._area = np.array([*self.scanned, *(n for core in cores for n in core.numbers)], np.float64)
        self._pitch = 1000.0 / math.sqrt(settings.nuclei_per_mm2) / mpp
        self._columns = math.ceil(settings.width / self._pitch) + 1
        self._threshold = 0.0 if cores else _threshold(settings, self._area)

    @cached_property
    def _texture(self) -> NDArray[np.float32]:
        return textures(self.settings.seed, self.settings.drawn_mpp)

    def nuclei(self, box: Box) -> NDArray[np.void]:
        """Return the nuclei (:data:`~wsipipe.phantom.nuclei.NUCLEUS`) that may reach into *box* (base px)."""
        margin = LARGEST_UM / self.settings.drawn_mpp
        inside = intersect(box, self.scanned)
        lattice = [(v + d * margin) / self._pitch for v, d in zip(inside, (-1, -1, 1, 1), strict=True)]
        extra = 1 + math.ceil(margin / self._pitch)
        i0, j0 = math.floor(lattice[0]) - extra, math.floor(lattice[1]) - extra
        i1, j1 = math.ceil(lattice[2]) + extra, math.ceil(lattice[3]) + extra
        scratch = np.zeros((i1 - i0 + 2 * REACH) * (j1 - j0 + 2 * REACH) * PER_SITE, NUCLEUS)
        found: NDArray[np.void] = nuclei_of_sites(
            self.settings.seed, i0, j0, i1, j1, self._pitch, self.settings.drawn_mpp, self._area, self._threshold,
            self._columns, self.settings.positive if self.settings.staining == "hdab" else 0.0, scratch,
        )  # fmt: skip
        x, y = found["x"], found["y"]
        near = (x >= box[0] - margin) & (x < box[2] + margin) & (y >= box[1] - margin) & (y < box[3] + margin)
        return found[near]

    def instance_map(self, box: Box) -> NDArray[np.int32]:
        """Return ids (h, w) of the nuclei in *box* (base px); 0 is background. A pixel has the same id in any box."""
        labels = np.zeros((box[3] - box[1], box[2] - box[0]), np.int32)
        nothing = np.zeros((0, 0, 0), np.float32)
        paint_nuclei(self.nuclei(box), box[0], box[1], labels, nothing, nothing, self.settings.drawn_mpp, False)
        self._clear_outside(labels, box)
        return labels

    def polygons(self, box: Box) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
        """Return ids and outlines (shapely, base px) of the nuclei whose centre is in *box*, sorted by id.

        Where nuclei overlap, the lower one is seen only in part: the same rule as in :meth:`instance_map`.
        """
        nuclei = self.nuclei(grow(box, 2 * int(LARGEST_UM / self.settings.drawn_mpp)))
        shapes = np.array(shapely.polygons(outlines(nuclei, VERTICES)), object).reshape(-1)
        x, y = nuclei["x"], nuclei["y"]
        own = np.flatnonzero((x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3]))
        seen = _visible(shapes, own, shapely.box(*self.scanned))
        order = np.argsort(nuclei["id"][own])
        return nuclei["id"][own][order].astype(np.int32), seen[order]

    def positive(self, box: Box) -> NDArray[np.bool_]:
        """Return which of the nuclei whose centre is in *box* (base px) are brown, (n,), sorted by id."""
        nuclei = self.nuclei(box)
        x, y = nuclei["x"], nuclei["y"]
        own = nuclei[(x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])]
        return np.asarray(own["brown"][np.argsort(own["id"])] > 0, np.bool_)

    def centroids(self, box: Box) -> NDArray[np.float64]:
        """Return the centres (n, 2) of the nuclei whose centre is in *box*, in base px, sorted by id."""
        nuclei = self.nuclei(box)
        x, y = nuclei["x"], nuclei["y"]
        own = nuclei[(x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])]
        own = own[np.argsort(own["id"])]
        return np.stack([own["x"], own["y"]], axis=1)

    def has_tissue(self, box: Box) -> bool:
        """Whether any pixel of *box* (base px) differs from glass."""
        inside = intersect(box, self.scanned)
        if is_empty(inside) or self._threshold == math.inf:
            return False
        near = grow(inside, int(LARGEST_UM / self.settings.drawn_mpp) + 1)
        fields = tissue_nodes(self.settings.seed, near, self._area)
        return bool(fields.max() > self._threshold - SOFT)

    def picture(self, box: Box) -> NDArray[np.uint8]:
        """Return the picture (h, w, 3) of *box* (base px), glass where there is no tissue."""
        height, width = box[3] - box[1], box[2] - box[0]
        stain, share = np.zeros((2, height, width), np.float32), np.zeros((height, width), np.float32)
        seed, mpp = self.settings.seed, self.settings.drawn_mpp
        x0, y0 = box[0], box[1]
        paint_tissue(nodes(seed, box, mpp, self._area), x0, y0, self._threshold, self._texture, stain, share)
        nuclei, labels = self.nuclei(box), np.zeros((height, width), np.int32)
        if self.settings.staining == "hdab":
            stain *= PALE[:, None, None]
            paint_nuclei(nuclei, x0, y0, labels, stain, self._texture, mpp, True)
        else:
            paint_nuclei(nuclei, x0, y0, labels, stain, self._texture, mpp, False)
        np.maximum(share, labels > 0, out=share)
        out = np.empty((height, width, 3), np.uint8)
        develop(stain, share, x0, y0, self._texture, DYES[self.settings.staining], out)
        return out

    def _clear_outside(self, labels: NDArray[np.int32], box: Box) -> None:
        x0, y0, x1, y1 = intersect(box, self.scanned)
        labels[: max(0, y0 - box[1])] = labels[max(0, y1 - box[1]) :] = 0
        labels[:, : max(0, x0 - box[0])] = labels[:, max(0, x1 - box[0]) :] = 0


def _threshold(settings: PhantomSettings, area: NDArray[np.float64]) -> float:
    """Return the value that the tissue field exceeds on the wanted share of the scanned area."""
    if settings.tissue in (0.0, 1.0):
        return math.inf if settings.tissue == 0 else -1e9
    x = np.linspace(area[0], area[2], 256, endpoint=False)
    y = np.linspace(area[1], area[3], 256, endpoint=False)
    values = [tissue_field(settings.seed, float(u), float(v), area) for v in y for u in x]
    return float(np.quantile(values, 1 - settings.tissue))


def _visible(shapes: NDArray[np.object_], own: NDArray[np.intp], scanned: shapely.Polygon) -> NDArray[np.object_]:
    """Return the part of each own shape that no later (higher) shape hides; its largest piece."""
    seen = shapes[own]
    below, above = shapely.STRtree(shapes).query(seen, predicate="intersects")
    hidden = above > own[below]
    for n in np.unique(below[hidden]):
        seen[n] = shapely.difference(seen[n], shapely.union_all(shapes[above[hidden & (below == n)]]))
    seen = shapely.intersection(seen, scanned)
    for n in np.flatnonzero(shapely.get_num_geometries(seen) > 1):
        parts = shapely.get_parts(seen[n])
        seen[n] = parts[np.argmax(shapely.area(parts))]
    return seen
