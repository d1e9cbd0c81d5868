"""Rows and columns for the cores of a microarray: a grid that may be turned, bent and full of gaps.

No straight line and no global model is asked for. The step to the next core is learned from neighbours; numbers spread
from core to core along such steps, each with its own estimate of the local steps; and a place without a core is
predicted from the cores around it, by a plane fitted with weights that fall off over a few rows and columns.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wsipipe.analysis.core_search import STRONG, Candidates

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CATCH = 0.42
"""A core is the expected one when it is within this share of the shorter step of where it is expected."""
REACH = 1.5
"""Rows and columns over which the weight of a core in a prediction falls off."""

_TURN = itertools.count()
"""Tells entries of equal cost on the queue apart, in the order in which they came."""


@dataclass(frozen=True)
class Grid:
    """Cores with their numbers.

    Attributes
    ----------
    index : int (n, 2)
        Row and column of each, from 0.
    xy : float (n, 2)
        Middles.
    weight : float (n,)
        How far each is trusted.
    steps : float (2, 2)
        From a row to the next, from a column to the next.
    """

    index: Ints
    xy: Floats
    weight: Floats
    steps: Floats

    @property
    def pitch(self) -> float:
        """The shorter step."""
        return float(np.hypot(*self.steps.T).min())

    def places(self, index: Ints) -> Floats:
        """Return where cores of these numbers (m, 2) are to be expected: (m, 2)."""
        out = np.empty((len(index), 2))
        for k, wanted in enumerate(index):
            away = (self.index - wanted).astype(np.float64)
            weight = self.weight * np.exp(-(away**2).sum(axis=1) / (2 * REACH**2)) + 1e-9
            flat = self.xy - away @ self.steps  # what is left when the grid's own steps are taken off
            design = np.column_stack([np.ones(len(away)), away]) * np.sqrt(weight)[:, None]
            ridge = np.diag([1e-9, 0.3, 0.3])
            out[k] = np.linalg.solve(design.T @ design + ridge, design.T @ (flat * np.sqrt(weight)[:, None]))[0]
        return out


def number_cores(found: Candidates, diameter: float) -> Grid | None:
    """Return the cores among the candidates, with rows from top to bottom and columns from left to right.

    Parameters
    ----------
    found : Candidates
    diameter : float
        Of a core, in the candidates' px.

    Returns
    -------
    Grid or None
        None without any core beyond doubt.
    """
    strong = np.flatnonzero(found.answer >= STRONG)
    if not strong.size:
        return None
    steps = _steps(found.xy[strong], diameter)
    numbered = _spread(found, steps, strong)
    rows = np.array(list(numbered), np.int64)
    index = np.array(list(numbered.values()), np.int64)
    index -= index.min(axis=0)
    grid = Grid(index, found.xy[rows], found.answer[rows], _mean_steps(index, found.xy[rows], steps))
    return _without_outliers(grid)


def _steps(xy: Floats, diameter: float) -> Floats:
    """Return the steps to the next row and to the next column (2, 2); a lone row or column is as wide as it is high."""
    right = _common_step(xy, np.array([1.0, 0.0]), diameter)
    axis = np.array([1.0, 0.0]) if right is None else right / np.hypot(*right)
    down = _common_step(xy, np.array([-axis[1], axis[0]]), diameter)
    if right is None and down is not None:
        right = np.array([down[1], -down[0]])
    right = np.array([1.5 * diameter, 0.0]) if right is None else right
    return np.stack([np.array([-right[1], right[0]]) if down is None else down, right])


def _common_step(xy: Floats, direction: Floats, diameter: float) -> Floats | None:
    """Return the commonest step from a core to the nearest one within 45 degrees of *direction*."""
    steps = []
    for place in xy:
        away = xy - place
        along, across = away @ direction, away @ np.array([-direction[1], direction[0]])
        ahead = np.flatnonzero((along > 0.7 * diameter) & (np.abs(across) < along))
        if ahead.size:
            steps.append(away[ahead[np.hypot(*away[ahead].T).argmin()]])
    if not steps:
        return None
    every = np.array(steps)
    near = np.hypot(*(every[:, None] - every[None]).transpose(2, 0, 1)) < 0.22 * np.hypot(*every.T)[:, None]
    votes = near.sum(axis=1) / np.hypot(*every.T)  # of two as common ones the shorter
    return np.asarray(np.median(every[near[votes.argmax()]], axis=0))


def _spread(found: Candidates, steps: Floats, strong: NDArray[np.intp]) -> dict[int, tuple[int, int]]:
    """Return row and column by candidate, spread from the core with the most neighbours, nearest guess first."""
    tree = cKDTree(found.xy)
    pitch = float(np.hypot(*steps.T).min())
    start = max(strong.tolist(), key=lambda k: _neighbours(found, tree, k, steps, pitch))
    numbered, taken = {start: (0, 0)}, {(0, 0)}
    queue: list[tuple[float, int, int, tuple[int, int], Floats]] = []
    _push(queue, found, tree, start, (0, 0), steps, pitch)
    while True:
        while queue:
            _, _, k, place, local = heapq.heappop(queue)
            if k in numbered or place in taken:
                continue
            numbered[k] = place
            taken.add(place)
            _push(queue, found, tree, k, place, local, pitch)
        if not _jump(queue, found, numbered, taken, steps, pitch):
            return numbered


def _neighbours(found: Candidates, tree: cKDTree, k: int, steps: Floats, pitch: float) -> float:
    around = np.concatenate([found.xy[k] + steps, found.xy[k] - steps])
    distance, near = (np.atleast_1d(a) for a in tree.query(around))
    return float(found.answer[near[distance < CATCH * pitch]].sum() + 0.01 * found.answer[k])


def _push(
    queue: list[tuple[float, int, int, tuple[int, int], Floats]], found: Candidates, tree: cKDTree, k: int,
    place: tuple[int, int], local: Floats, pitch: float,
) -> None:  # fmt: skip
    """Put the candidates one step from *k* on the queue, with the local steps as the new one corrects them."""
    for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1)):
        distance, near = tree.query(found.xy[k] + sign * local[axis])
        if distance < CATCH * pitch:
            new, there = local.copy(), list(place)
            there[axis] += sign
            trust = 0.5 * min(found.answer[k], found.answer[near], 0.8)
            new[axis] += trust * (sign * (found.xy[near] - found.xy[k]) - local[axis])
            cost = float(distance / pitch + 0.5 * (1 - found.answer[near]))
            heapq.heappush(queue, (cost, next(_TURN), int(near), (there[0], there[1]), new))


def _jump(
    queue: list[tuple[float, int, int, tuple[int, int], Floats]], found: Candidates,
    numbered: dict[int, tuple[int, int]], taken: set[tuple[int, int]], steps: Floats, pitch: float,
) -> bool:  # fmt: skip
    """Queue the candidate whose place, over a gap, is the least doubtful; False when there is none."""
    rest = [k for k in range(len(found.xy)) if k not in numbered]
    if not rest:
        return False
    rows = np.array(list(numbered), np.int64)
    index = np.array(list(numbered.values()), np.int64)
    grid = Grid(index, found.xy[rows], found.answer[rows], _mean_steps(index, found.xy[rows], steps))
    best: tuple[float, int, tuple[int, int]] | None = None
    for k in rest:
        nearest = index[np.hypot(*(grid.xy - found.xy[k]).T).argmin()]
        offset = (found.xy[k] - grid.places(nearest[None])[0]) @ np.linalg.inv(grid.steps)
        there = nearest + np.rint(offset).astype(np.int64)
        far = float(np.hypot(*(grid.places(there[None])[0] - found.xy[k]))) / pitch
        limit = CATCH if found.answer[k] >= STRONG else 0.8 * CATCH
        place = int(there[0]), int(there[1])
        if far < limit and place not in taken and np.abs(offset).max() < 4.5:
            cost = far + 0.3 * float(np.abs(offset).sum()) - found.answer[k]
            best = min(best, (cost, k, place)) if best else (cost, k, place)
    if best is None:
        return False
    heapq.heappush(queue, (best[0], next(_TURN), best[1], best[2], grid.steps.copy()))
    return True


def _mean_steps(index: Ints, xy: Floats, steps: Floats) -> Floats:
    """Return the steps of the plane through all cores, those given where they lie in one row or column."""
    centred = (index - index.mean(axis=0)).astype(np.float64)
    flat = xy - xy.mean(axis=0) - centred @ steps
    gram = centred.T @ centred + np.eye(2)
    return np.asarray(steps + np.linalg.solve(gram, centred.T @ flat))


def _without_outliers(grid: Grid) -> Grid:
    """Return the grid without cores that are far from where the others say that they should be."""
    if len(grid.xy) < 4:
        return grid
    far = np.empty(len(grid.xy))
    for k in range(len(far)):
        rest = np.arange(len(far)) != k
        others = Grid(grid.index[rest], grid.xy[rest], grid.weight[rest], grid.steps)
        far[k] = np.hypot(*(others.places(grid.index[k : k + 1])[0] - grid.xy[k])) / grid.pitch
    keep = (far < 0.5) | (grid.weight >= STRONG)
    index = grid.index[keep]
    return Grid(index - index.min(axis=0), grid.xy[keep], grid.weight[keep], grid.steps)
