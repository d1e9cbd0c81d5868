"""Cells from probability maps, the same cells however the slide is cut into windows.

Every step looks no further than a bound derived from :class:`CellRules`; ties are broken by global coordinates. The
steps are told in :func:`find_cells`, the bounds are added up in :func:`~wsipipe.cells.rules.halo`, the reasons stand in
``docs/decisions/cells-from-maps.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.cells.kernels import clumps, markers, regions
from wsipipe.cells.rules import FOREGROUND, MARKER, TYPE, CellRules, halo, level_of
from wsipipe.geometry import grow, intersect, is_empty
from wsipipe.units import Box, Size

__all__ = ["CellRules", "Cells", "cells_of", "find_cells", "halo"]

Image = NDArray[np.uint8]
Labels = NDArray[np.int32]

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells that one core owns, in raster order of their first pixels; n of them.

    Attributes
    ----------
    label_image : int32 (h, w)
        Cells of the window numbered 1..n, 0 elsewhere.
    window : Box
        The window, in grid px.
    sums : int64 (n, 3)
        Pixels, sum of x, sum of y, with x and y whole grid px (pixel centres lie half a pixel further).
    box : int32 (n, 4)
        Half-open boxes in grid px.
    probability : float32 (n,)
        Mean foreground probability inside.
    type : int16 (n,)
        Index among the "type:" maps of the largest mean, -1 when that is too low or there are no such maps.
    type_probability : float32 (n,)
        That mean; NaN without such maps.
    type_means : float32 (n, T)
        The mean of each "type:" map.
    oversize : bool (n,)
        Whether the cell was cut out of an object that is larger than one cell can be.
    neighbours : int32 (h, w) or None
        On request: cells that other cores own, in no stated order.
    """

    label_image: Labels
    window: Box
    sums: NDArray[np.int64]
    box: Labels
    probability: NDArray[np.float32]
    type: NDArray[np.int16]
    type_probability: NDArray[np.float32]
    type_means: NDArray[np.float32]
    oversize: NDArray[np.bool_]
    neighbours: Labels | None = None

    def __len__(self) -> int:
        return len(self.sums)


def find_cells(
    maps: Image,
    names: Sequence[str],
    window: Box,
    core: Box,
    slide_size: Size,
    rules: CellRules,
    *,
    neighbours: bool = False,
) -> Cells:
    """Return the cells whose centroid lies in *core*.

    1. Cores are the 4-connected components of smoothed marker and foreground above their thresholds. One whose outline
       and marker say that it holds several small nuclei is parted (:func:`~wsipipe.cells.kernels.clumps.part`). A
       component
       that is too large for one cell is cut by its shape: first into parts that are deep compared with their
       surroundings, and what is still too large into seeds, one per neighbourhood. Without a marker map, cores come
       from the shape of the foreground.
    2. All cores grow at once inside the foreground, by a bounded number of steps, ties to the core whose first pixel
       comes first. A component of foreground without a core becomes a cell when it is no larger than one.
    3. Holes are filled, enclosed cells with them; small and improbable cells are dropped.
    4. A cell belongs to the core that holds its centroid.

    Parameters
    ----------
    maps : uint8 (K, h, w)
        Probabilities times 255 of the window.
    names : sequence of str
        Their names: "foreground", perhaps "marker", perhaps several "type:NAME".
    window, core : Box
        Grid px. What sticks out of the slide is ignored.
    slide_size : (int, int)
        Width and height of the slide in grid px.
    rules : CellRules
    neighbours : bool
        Keep the cells of other cores in ``Cells.neighbours`` (needed to expand).

    Raises
    ------
    ValueError
        When *maps*, *names* and *window* do not fit together, or the window reaches less than :func:`halo` beyond the
        core.
    """
    inside = intersect(window, (0, 0, *slide_size))
    _check(maps, names, window, core, slide_size, rules)
    if is_empty(inside):
        return _no_cells(window, sum(name.startswith(TYPE) for name in names))
    x0, y0 = inside[0] - window[0], inside[1] - window[1]
    h, w = inside[3] - inside[1], inside[2] - inside[0]
    maps = np.ascontiguousarray(maps[:, y0 : y0 + h, x0 : x0 + w])
    near = intersect(grow(core, rules.max_diameter_px), inside)
    labels, flagged = _label(maps, names, inside, inside if neighbours or is_empty(near) else near, rules)
    cells = cells_of(labels, flagged, maps, names, inside, core, rules, neighbours)
    return cells if inside == window else _reframed(cells, window, (y0, x0))


def _check(maps: Image, names: Sequence[str], window: Box, core: Box, slide_size: Size, rules: CellRules) -> None:
    shape = len(names), window[3] - window[1], window[2] - window[0]
    if maps.shape != shape or maps.dtype != np.uint8 or FOREGROUND not in names:
        raise ValueError(
            f"maps are {maps.dtype} {maps.shape} named {tuple(names)}; expected uint8 {shape} with a foreground map"
        )
    slide = 0, 0, *slide_size
    need = intersect(grow(intersect(core, slide), halo(rules, names)), slide)
    if not is_empty(intersect(core, slide)) and intersect(need, window) != need:
        raise ValueError(f"window {window} is too small for core {core}; expected at least {need} (see halo())")


def _label(
    maps: Image, names: Sequence[str], inside: Box, near: Box, rules: CellRules
) -> tuple[Labels, NDArray[np.bool_]]:
    """Return the filled label image (padded) of what reaches into *near*, and which labels were oversize (0 unused)."""
    mask = _at_least(maps[names.index(FOREGROUND)], rules.level)
    marker = maps[names.index(MARKER)] if MARKER in names else None
    labels, cores, (shaped, oversize, count) = _markers(mask, marker, inside, rules)
    free = np.pad(mask, 1)
    x0, y0 = near[0] - inside[0] + 1, near[1] - inside[1] + 1
    regions.keep_joined(free, labels, x0, y0, x0 + near[2] - near[0], y0 + near[3] - near[1])
    old = regions.renumber(labels, count)
    regions.grow(labels, free, _reach(labels, old, shaped, rules))
    count = markers.components(free, np.pad(cores, 1), labels, rules.max_diameter_px, len(old) - 1)
    regions.fill(labels, regions.boxes(labels, count))
    flagged = np.zeros(count + 1, np.bool_)
    flagged[: len(old)] = old >= oversize
    return labels, flagged


def _markers(
    mask: Image, marker: Image | None, inside: Box, rules: CellRules
) -> tuple[Labels, Image, tuple[int, int, int]]:
    """Return the numbered markers (padded), all core pixels, and three numbers.

    They are the first number that comes from a shape, the first that stems from an oversize object, and the last.
    """
    labels = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), np.int32)
    rest, cores, count = mask, mask, 0
    if marker is not None:
        smooth = cv2.GaussianBlur(marker, (3, 3), 0, borderType=cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
        cores = _at_least(smooth, level_of(rules.marker_threshold)) & mask
        rest, count = _accept(cores, labels, 0, rules)
        if rules.clump_threshold > 0:
            high = _at_least(smooth, level_of(rules.clump_threshold))
            count = clumps.part(labels, high, count, rules.clump_part_px, rules.clump_share_px)
    shaped = count + 1
    if not rest.any():
        return labels, cores, (shaped, shaped, count)
    energy = markers.depth(rest, rules.depth_px * markers.DEPTH_UNIT)
    deep = _deep(energy, rules)
    rest, count = _accept(deep, labels, count, rules)
    seed = count + 1
    if rest.any():
        highest = _dilated(energy * rest, _square(rules.peak_px))
        count = markers.peaks(energy, highest, rest, inside[0], inside[1], rules.peak_px, count, labels)
    return (labels, deep, (shaped, seed, count)) if marker is None else (labels, cores, (shaped, shaped, count))


def _reach(labels: Labels, old: NDArray[np.int64], shaped: int, rules: CellRules) -> Labels:
    """Return how far each label grows; cores that come from a shape lie deep, and grow as far as D allows."""
    reach = np.full(len(old), rules.growth_px, np.int32)
    if old.max() >= shaped:
        box = regions.boxes(labels, len(old) - 1)
        room = (rules.max_diameter_px - (box[:, 2:] - box[:, :2]).max(axis=1)) // 2
        reach = np.where(old >= shaped, np.minimum(room, rules.shape_growth_px), reach)
    return reach


def _accept(cores: Image, labels: Labels, count: int, rules: CellRules) -> tuple[Image, int]:
    """Number the components of *cores* that fit in one; return the pixels of the others (1) and the last number."""
    free = np.pad(cores, 1)
    count = markers.components(free, np.zeros_like(free), labels, rules.max_core_px, count)
    return (free[1:-1, 1:-1] == 2).view(np.uint8), count


def _deep(energy: Image, rules: CellRules) -> Image:
    """Return the pixels (1) at least ``core_share`` as deep as the deepest one nearby, and those beside them."""
    limit = np.maximum(1, np.ceil(np.arange(256) * rules.core_share - 1e-9)).astype(np.uint8)
    deep = _at_least(energy, limit[_dilated(energy, _square(rules.peak_px))])
    return _dilated(deep, _CROSS) & _at_least(energy, 1)


def _at_least(image: Image, level: Image | int) -> Image:
    return (image >= level).view(np.uint8)


def _dilated(image: Image, shape: Image) -> Image:
    return cv2.dilate(image, shape).astype(np.uint8, copy=False)


def _square(radius: int) -> Image:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


def cells_of(
    labels: Labels,
    flagged: NDArray[np.bool_],
    maps: Image,
    names: Sequence[str],
    inside: Box,
    core: Box,
    rules: CellRules,
    neighbours: bool,
) -> Cells:
    """Return the cells of *core* from the padded label image of *inside*."""
    types = [i for i, name in enumerate(names) if name.startswith(TYPE)]
    channels = np.array([names.index(FOREGROUND), *types], np.int64)
    sums, box, totals = regions.accumulate(labels, maps, channels, inside[0], inside[1], len(flagged) - 1)
    count, sum_x, sum_y = sums.T
    kept = (count >= max(1.0, rules.min_area_px)) & (totals[:, 0] >= rules.min_probability * 255 * count)
    if rules.drop_oversize:
        kept &= ~flagged[1:]
    owned = kept & (sum_x >= core[0] * count) & (sum_x < core[2] * count)
    owned &= (sum_y >= core[1] * count) & (sum_y < core[3] * count)
    order = np.flatnonzero(owned)
    order = order[_raster_order(labels, box[order], order + 1, inside)]
    means = totals[order] / (255.0 * count[order, None])
    kind = means[:, 1:].argmax(axis=1) if types else np.full(len(order), -1)
    kind_mean = means[np.arange(len(order)), kind + 1] if types else np.full(len(order), np.nan)
    kind[kind_mean < rules.min_type_probability] = -1
    others = _numbered(labels, np.flatnonzero(kept & ~owned)) if neighbours else None
    return Cells(
        label_image=_numbered(labels, order),
        window=inside,
        sums=sums[order],
        box=box[order],
        probability=means[:, 0].astype(np.float32),
        type=kind.astype(np.int16),
        type_probability=kind_mean.astype(np.float32),
        type_means=means[:, 1:].astype(np.float32),
        oversize=flagged[1:][order],
        neighbours=others,
    )


def _raster_order(labels: Labels, box: Labels, numbers: NDArray[np.int64], inside: Box) -> NDArray[np.int64]:
    """Return the order of the regions by first pixel."""
    first = regions.first_columns(labels, box[:, 0] - inside[0] + 1, box[:, 1] - inside[1] + 1, numbers)
    return np.lexsort((first, box[:, 1]))


def _numbered(labels: Labels, order: NDArray[np.int64]) -> Labels:
    """Return the unpadded label image in which the regions ``order + 1`` are numbered 1, 2, … and others are 0."""
    numbers = np.zeros(int(labels.max()) + 1, np.int32)
    numbers[order + 1] = np.arange(1, len(order) + 1)
    out = np.empty((labels.shape[0] - 2, labels.shape[1] - 2), np.int32)
    regions.relabel(labels, numbers, out)
    return out


def _no_cells(window: Box, types: int) -> Cells:
    empty = np.zeros((max(0, window[3] - window[1]), max(0, window[2] - window[0])), np.int32)
    none, means = np.zeros(0, np.float32), np.zeros((0, types), np.float32)
    return Cells(
        empty, window, np.zeros((0, 3), np.int64), np.zeros((0, 4), np.int32), none, np.zeros(0, np.int16), none, means,
        np.zeros(0, np.bool_), empty,
    )  # fmt: skip


def _reframed(cells: Cells, window: Box, offset: tuple[int, int]) -> Cells:
    """Return *cells* with label images of *window*, of which theirs is the part at *offset* (y, x)."""

    def place(image: Labels) -> Labels:
        out = np.zeros((window[3] - window[1], window[2] - window[0]), np.int32)
        out[offset[0] : offset[0] + image.shape[0], offset[1] : offset[1] + image.shape[1]] = image
        return out

    around = None if cells.neighbours is None else place(cells.neighbours)
    return replace(cells, label_image=place(cells.label_image), window=window, neighbours=around)
