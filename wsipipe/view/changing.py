"""Cells that are corrected while they are shown."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from wsipipe.errors import SettingsError
from wsipipe.formats.colours import Rgb, class_colours
from wsipipe.units import Pair
from wsipipe.view.index import CellIndex
from wsipipe.view.wanted import ALL, HIDDEN, Wanted


class ChangingIndex(CellIndex):
    """Cells of a master file whose classes change, that go, and to which others come; the file stays as it is."""

    def __init__(self, master: str | os.PathLike[str]) -> None:
        super().__init__(master)
        self._codes_by_kind = {name: code for code, name in enumerate(self.colours)} | {"": self._none}

    def locate(self, cells: Mapping[str, Pair]) -> dict[str, int]:
        """Return the row of each cell, by its identity and about where it is; what is not there is left out."""
        groups = {i for x, y in cells.values() for i in self._groups((x, y, x, y))}
        ids, found = pa.array(list(cells), pa.string()), dict[str, int]()
        for i in sorted(groups):
            rows = pc.index_in(ids, self._group(i).table["cell_id"])
            pairs = zip(cells, rows.to_pylist(), strict=True)
            found |= {id_: int(self._offsets[i]) + row for id_, row in pairs if row is not None}
        return found

    def within(self, shape: shapely.Geometry, wanted: Wanted = ALL) -> dict[str, Pair]:
        """Return identity and centre of the cells that are wanted and whose centre lies in *shape*."""
        found: dict[str, Pair] = {}
        for i, rows in self._inside(shape, wanted):
            ids = self._group(i).table["cell_id"].take(rows - self._offsets[i]).to_pylist()
            found |= {id_: (float(x), float(y)) for id_, (x, y) in zip(ids, self._xy[rows], strict=True)}
        drawn = {id_: self.added.told(id_) for id_ in self.added.within(shape, wanted)}
        return found | {id_: (told["x"], told["y"]) for id_, told in drawn.items()}

    def inside(self, shape: shapely.Geometry) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return centre (n, 2) and code (n,) of the cells whose centre lies in *shape*, all classes."""
        rows = np.concatenate([np.zeros(0, np.int64), *(rows for _, rows in self._inside(shape, ALL))])
        centres = self.added.centres()
        own = shapely.intersects_xy(shape, *centres.T)
        xy = np.concatenate([self._xy[rows].astype(np.float64), centres[own]])
        return xy, np.concatenate([self._class[rows].astype(np.int64), self.added.codes()[own]])

    def _inside(self, shape: shapely.Geometry, wanted: Wanted) -> list[tuple[int, NDArray[np.int64]]]:
        """Return the rows of the cells in *shape*, by row group."""
        x0, y0, x1, y1 = shapely.bounds(shape).tolist()
        shapely.prepare(shape)
        found = []
        for i in self._groups((x0, y0, x1, y1), 0.0):
            xy = self._xy[self._offsets[i] : self._offsets[i + 1]]
            rows = np.flatnonzero(shapely.intersects_xy(shape, *xy.T) & self._shown(i, wanted))
            if len(rows):
                found.append((i, self._offsets[i] + rows))
        return found

    def outline(self, row: int) -> shapely.Polygon:
        """Return the outline of the cell in a row."""
        i = int(np.searchsorted(self._offsets, row, "right")) - 1
        group, at = self._group(i), row - int(self._offsets[i])
        return shapely.Polygon(group.xy[group.starts[at] : group.starts[at + 1]].astype(np.float64).round(2))

    def code_of(self, kind: str, colour: Rgb | None = None) -> int:
        """Return the code of a class, "" for none; one that is new is added.

        Raises
        ------
        SettingsError
            When there are too many.
        """
        if kind not in self._codes_by_kind:
            if len(self.names) >= HIDDEN:
                raise SettingsError(f"class {kind!r}: {HIDDEN - 1} classes are the most; use one of those there are")
            self.colours[kind] = class_colours({**self.colours, kind: colour})[kind]
            self._codes_by_kind[kind] = len(self.names)
            self.names.append(kind)
        return self._codes_by_kind[kind]

    def kinds(self) -> list[str]:
        """Return the class of each code, "" for none."""
        return [self._named(code) or "" for code in range(len(self.names))]

    def kind_of(self, row: int) -> str:
        """Return the class of the cell in a row, "" for none."""
        return self._named(int(self._class[row])) or ""

    def recode(self, row: int, code: int) -> None:
        """Give the cell in a row another class; :data:`~wsipipe.view.wanted.HIDDEN` hides it from everything."""
        self._class[row] = code
