"""Which cells are wanted of a window, in what form they come, and the few cells that were drawn by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

HIDDEN = 255
"""Code of a cell that is not shown."""

FBox = tuple[float, float, float, float]
Codes = NDArray[np.uint8]


class Wanted(NamedTuple):
    """Which cells are wanted: those of classes that are not *hidden*, which meet the conditions *where*."""

    hidden: frozenset[int] = frozenset()
    where: str = ""

    def classes(self) -> NDArray[np.bool_]:
        """Return for each code (256) whether its cells are wanted."""
        table = np.ones(256, np.bool_)
        table[[HIDDEN, *(code for code in self.hidden if code < HIDDEN)]] = False
        return table


ALL = Wanted()


class Outlines(NamedTuple):
    """Outlines of n cells: their codes, the number of vertices of each, and all vertices in base pixels (m, 2)."""

    codes: Codes
    lengths: NDArray[np.int64]
    xy: NDArray[np.float32]

    @classmethod
    def none(cls) -> Outlines:
        """Return no outlines."""
        return cls(np.zeros(0, np.uint8), np.zeros(0, np.int64), np.zeros((0, 2), np.float32))


class Dots(NamedTuple):
    """Centroids of n cells in base pixels (n, 2), and their codes."""

    codes: Codes
    xy: NDArray[np.float32]


class AddedCells:
    """Cells that were drawn by hand. They have no measurements: no condition holds for them, and no colour by one."""

    def __init__(self) -> None:
        self._cells: dict[str, tuple[shapely.Polygon, int]] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def put(self, identity: str, shape: shapely.Polygon, code: int) -> None:
        """Add a cell, or change it."""
        self._cells = {**self._cells, identity: (shape, code)}

    def drop(self, identity: str) -> None:
        """Take a cell away."""
        self._cells = {key: cell for key, cell in self._cells.items() if key != identity}

    def codes(self, wanted: Wanted = ALL) -> NDArray[np.int64]:
        """Return the class of each cell that is wanted."""
        return np.array([code for _, (_, code) in self._of(wanted)], np.int64)

    def centres(self, wanted: Wanted = ALL) -> NDArray[np.float64]:
        """Return the centre of each cell that is wanted (n, 2)."""
        shapes = [shape for _, (shape, _) in self._of(wanted)]
        return shapely.get_coordinates(shapely.centroid(np.array(shapes, object))).reshape(-1, 2)

    def outlines(self, box: FBox, wanted: Wanted, measure: str) -> Outlines:
        """Return the outlines whose boxes meet *box*."""
        near = [cell for _, cell in self._of(wanted) if shapely.box(*cell[0].bounds).intersects(shapely.box(*box))]
        if not near:
            return Outlines.none()
        xy = [shapely.get_coordinates(shape).astype(np.float32) for shape, _ in near]
        codes = np.array([HIDDEN if measure else code for _, code in near], np.uint8)
        return Outlines(codes, np.array([len(ring) for ring in xy], np.int64), np.concatenate(xy))

    def dots(self, box: FBox, wanted: Wanted, measure: str) -> Dots:
        """Return the centres in *box*."""
        xy, codes = self.centres(wanted), self.codes(wanted)
        x, y = xy.T
        inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
        shown = np.full(int(inside.sum()), HIDDEN) if measure else codes[inside]
        return Dots(shown.astype(np.uint8), xy[inside].astype(np.float32))

    def at(self, x: float, y: float, wanted: Wanted) -> tuple[float, dict[str, Any], int] | None:
        """Return area, description and class of the smallest cell over a point; None where there is none."""
        over = [
            (shape.area, self.told(identity), code)
            for identity, (shape, code) in self._of(wanted)
            if shapely.intersects_xy(shape, x, y)
        ]
        return min(over, key=lambda cell: cell[0]) if over else None

    def within(self, shape: shapely.Geometry, wanted: Wanted) -> list[str]:
        """Return the identities of cells whose centre lies in *shape*."""
        return [k for k, (s, _) in self._of(wanted) if shapely.intersects(shape, shapely.centroid(s))]

    def told(self, identity: str) -> dict[str, Any]:
        """Return what is known of a cell."""
        shape = self._cells[identity][0]
        ring = np.round(shapely.get_coordinates(shape), 2).tolist()
        centre = shapely.centroid(shape)
        return {"cell_id": identity, "x": centre.x, "y": centre.y, "drawn": True, "outline": ring}

    def __contains__(self, identity: object) -> bool:
        return identity in self._cells

    def _of(self, wanted: Wanted) -> list[tuple[str, tuple[shapely.Polygon, int]]]:
        return [] if wanted.where else [cell for cell in self._cells.items() if cell[1][1] not in wanted.hidden]
