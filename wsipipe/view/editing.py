"""Corrections and regions made in the viewer: each step saved at once beside the cells, and taken back."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely

from wsipipe.errors import OutputError, SettingsError, WsipipeError
from wsipipe.formats import corrections as kept
from wsipipe.formats.corrections import ADDED, DELETED, RELABELLED, Correction, Corrections
from wsipipe.formats.imported import LARGEST_UM2, outline_of
from wsipipe.formats.table import cell_ids
from wsipipe.units import Pair
from wsipipe.view import regions as drawn
from wsipipe.view.changing import ChangingIndex
from wsipipe.view.regions import Region
from wsipipe.view.sent import centre_of, name_of, on_slide, places_of, ring_of
from wsipipe.view.wanted import HIDDEN, Wanted

MOST_CELLS = 20_000
"""Cells that are changed at a time."""


class Change(NamedTuple):
    """A cell or a region before and after a step; None where there was, or is, no correction or no region."""

    store: str
    id: str
    before: Any
    after: Any


class Editing:
    """Corrections of the cells of a master file, and regions over them. Safe to share between threads.

    The master file is never changed. What cannot be edited (a file beside it that is damaged or belongs to other cells)
    is told in :attr:`problem`, and stays as it is.

    Parameters
    ----------
    index : CellIndex
        Shows the cells as they are corrected.
    master : path
    """

    def __init__(self, index: ChangingIndex, master: Path) -> None:
        self._index, self._master, self._turn = index, master, threading.RLock()
        self._paths = {"cells": kept.path_beside(master), "regions": drawn.path_beside(master)}
        self._corrections, self._regions = Corrections(), dict[str, Region]()
        self._rows: dict[str, tuple[int, str]] = {}  # of cells that were corrected: row, and class as found
        self._done: list[list[Change]] = []
        self._undone: list[list[Change]] = []
        self.problem = ""
        try:
            self._load()
        except WsipipeError as error:
            self.problem = str(error)
        self._stamps = {store: _stamp(path) for store, path in self._paths.items()}

    def _load(self) -> None:
        """Read what was done before, and show it."""
        if self._paths["cells"].exists():
            found = kept.read_corrections(self._paths["cells"], self._master)
            self._remember({c.id: centre_of(c.shape) for c in found.by_id.values() if c.what != ADDED})
            lost = [c.id for c in found.by_id.values() if c.what != ADDED and c.id not in self._rows]
            if lost:
                raise SettingsError(f"{self._paths['cells']}: {len(lost)} corrected cells are not in {self._master}")
            self._corrections = found
            for correction in found.by_id.values():
                self._show(correction.id, correction)
        if self._paths["regions"].exists():
            self._regions = drawn.read_drawn_regions(self._paths["regions"], self._index.about)

    # --- steps --------------------------------------------------------------------------------------------------------

    def do(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a page asks for, save it, and return the state after it.

        Raises
        ------
        SettingsError
            When it cannot be done, in one line.
        OutputError
            When it cannot be saved; then nothing is changed.
        """
        steps: dict[str, Callable[[Mapping[str, Any]], list[Change]]] = {
            "relabel": self._relabel,
            "delete": self._delete,
            "restore": self._restore,
            "draw": self._draw,
            "region": self._region,
            "rename": self._rename,
            "drop": self._drop,
        }
        with self._turn:
            if self.problem:
                raise SettingsError(f"nothing can be corrected here: {self.problem}")
            what = told.get("do")
            if what in ("undo", "redo"):
                pair = (self._done, self._undone) if what == "undo" else (self._undone, self._done)
                self._again(*pair, forward=what == "redo")
            elif what in steps:
                changes = [change for change in steps[what](told) if change.before is not change.after]
                if changes:
                    self._take(changes, True)
                    self._done.append(changes)
                    self._undone.clear()
            else:
                raise SettingsError(f"no such step: {what!r}")
            return self.state()

    def select(self, told: Mapping[str, Any], wanted: Wanted) -> list[dict[str, Any]]:
        """Return identity, centre and outline of the cells whose centre lies in a ring that was drawn."""
        found = self._index.within(ring_of(told.get("ring")), wanted)
        if len(found) > MOST_CELLS:
            raise SettingsError(f"{len(found):,} cells lie in it; {MOST_CELLS:,} can be changed at a time")
        rows = self._index.locate(found)
        return [
            {"cell_id": id_, "x": x, "y": y, "outline": self._outline(id_, rows.get(id_))}
            for id_, (x, y) in found.items()
        ]

    def _outline(self, identity: str, row: int | None) -> list[list[float]]:
        if row is None:
            ring: list[list[float]] = self._index.added.told(identity)["outline"]
            return ring
        xy: list[list[float]] = shapely.get_coordinates(self._index.outline(row)).tolist()
        return xy

    def _relabel(self, told: Mapping[str, Any]) -> list[Change]:
        kind = name_of(told.get("kind"), "class", empty=True)
        return [self._changed(id_, kind) for id_ in self._cells(told)]

    def _changed(self, identity: str, kind: str) -> Change:
        """Return that a cell is given a class."""
        before = self._corrections.by_id.get(identity)
        if before is not None and before.what == ADDED:
            after: Correction | None = Correction(identity, ADDED, before.shape, kind)
        else:
            row, was = self._rows[identity]
            shape = before.shape if before else self._index.outline(row)
            after = None if kind == was else Correction(identity, RELABELLED, shape, kind, was)
        same = before is not None and after is not None and (before.what, before.kind) == (after.what, after.kind)
        return Change("cells", identity, before, before if same else after)

    def _delete(self, told: Mapping[str, Any]) -> list[Change]:
        changes = []
        for id_ in self._cells(told):
            before = self._corrections.by_id.get(id_)
            after = None
            if before is None or before.what != ADDED:
                row, was = self._rows[id_]
                after = Correction(id_, DELETED, before.shape if before else self._index.outline(row), "", was)
            changes.append(Change("cells", id_, before, after))
        return changes

    def _restore(self, told: Mapping[str, Any]) -> list[Change]:
        """Return that cells are as they were found."""
        by_id = self._corrections.by_id
        return [Change("cells", id_, by_id[id_], None) for id_ in self._cells(told) if id_ in by_id]

    def _draw(self, told: Mapping[str, Any]) -> list[Change]:
        kind, about = name_of(told.get("kind"), "class", empty=True), self._index.about
        shape = outline_of(on_slide(ring_of(told.get("ring")), self._index.about["size"]))
        um2 = shape.area * about["mpp"][0] * about["mpp"][1]
        if not 0 < um2 <= LARGEST_UM2:
            raise SettingsError(f"a cell of {um2:,.0f} µm²; expected up to {LARGEST_UM2:,.0f}: draw a region instead")
        id_ = cell_ids(np.array([shape], object), about["fingerprint"])[0].as_py()
        before = self._corrections.by_id.get(id_)
        return [Change("cells", id_, before, before or Correction(id_, ADDED, shape, kind))]

    def _region(self, told: Mapping[str, Any]) -> list[Change]:
        shape = on_slide(ring_of(told.get("ring")), self._index.about["size"])
        taken = {region.name for region in self._regions.values()}
        free = next(f"Region {k}" for k in range(1, len(taken) + 2) if f"Region {k}" not in taken)
        region = Region(str(uuid.uuid4()), free, name_of(told.get("kind"), "class", empty=True), shape)
        return [Change("regions", region.id, None, region)]

    def _rename(self, told: Mapping[str, Any]) -> list[Change]:
        region = self._one(told)
        name, kind = name_of(told.get("name"), "name"), name_of(told.get("kind"), "class", empty=True)
        if any(other.name == name and other is not region for other in self._regions.values()):
            raise SettingsError(f"another region is called {name!r}; give a name of its own")
        return [Change("regions", region.id, region, Region(region.id, name, kind, region.shape))]

    def _drop(self, told: Mapping[str, Any]) -> list[Change]:
        region = self._one(told)
        return [Change("regions", region.id, region, None)]

    # --- what steps need ----------------------------------------------------------------------------------------------

    def numbers(self, identity: str) -> dict[str, Any] | None:
        """Return the numbers of a region; None where there is none."""
        region = self._regions.get(identity)
        return None if region is None else drawn.summary(self._index, region)

    def _one(self, told: Mapping[str, Any]) -> Region:
        region = self._regions.get(str(told.get("id")))
        if region is None:
            raise SettingsError("there is no such region any more")
        return region

    def _cells(self, told: Mapping[str, Any]) -> list[str]:
        """Return the cells that a page names, and remember where they are."""
        named = places_of(told.get("cells"), MOST_CELLS)
        self._remember({i: xy for i, xy in named.items() if i not in self._rows and i not in self._corrections.by_id})
        lost = [id_ for id_ in named if id_ not in self._rows and id_ not in self._corrections.by_id]
        if lost:
            raise SettingsError(f"{len(lost)} of these cells are not there any more; load the page again")
        return list(named)

    def _remember(self, places: Mapping[str, Pair]) -> None:
        if places:
            found = self._index.locate(places)
            self._rows |= {id_: (row, self._index.kind_of(row)) for id_, row in found.items()}

    # --- doing and undoing --------------------------------------------------------------------------------------------

    def _again(self, source: list[list[Change]], target: list[list[Change]], forward: bool) -> None:
        """Take the last step of *source* back, or do it again."""
        if source:
            self._take(source[-1], forward)
            target.append(source.pop())

    def _take(self, changes: Sequence[Change], forward: bool) -> None:
        """Do or undo *changes*: saved first, then shown."""
        stores: dict[str, dict[str, Any]] = {
            "cells": dict(self._corrections.by_id),
            "regions": dict(self._regions),
        }
        for store, id_, before, after in changes:
            wanted = after if forward else before
            if wanted is None:
                stores[store].pop(id_, None)
            else:
                stores[store][id_] = wanted
        self._save({change.store for change in changes}, stores)
        self._corrections.by_id, self._regions = stores["cells"], stores["regions"]
        for store, id_, _, _ in changes:
            if store == "cells":
                self._show(id_, stores["cells"].get(id_))
        self._index.revision += 1

    def _save(self, which: set[str], stores: Mapping[str, dict[str, Any]]) -> None:
        for store in sorted(which):
            path = self._paths[store]
            if _stamp(path) != self._stamps[store]:
                raise OutputError(f"{path} was changed by another program; start the viewer again to go on with it")
            if store == "cells":
                kept.write_corrections(path, self._master, Corrections(stores[store], self._index.colours))
            else:
                drawn.write_drawn_regions(path, stores[store], self._index.about)
            self._stamps[store] = _stamp(path)

    def _show(self, identity: str, correction: Correction | None) -> None:
        """Show a cell as it is corrected, or as it was found."""
        index = self._index
        if identity in self._rows:
            row, was = self._rows[identity]
            kind = was if correction is None else correction.kind
            gone = correction is not None and correction.what == DELETED
            index.recode(row, HIDDEN if gone else index.code_of(kind, self._corrections.colours.get(kind)))
        elif correction is None:
            index.added.drop(identity)
        else:
            colour = self._corrections.colours.get(correction.kind)
            index.added.put(identity, correction.shape, index.code_of(correction.kind, colour))

    # --- what is told -------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what a page shows of it."""
        with self._turn:
            return {
                "revision": self._index.revision,
                "cells": self._index.cells,
                "classes": self._index.classes(),
                "told": self._corrections.told() if self._corrections.by_id else "",
                "file": self._paths["cells"].name,
                "regions_file": self._paths["regions"].name,
                "undo": len(self._done),
                "redo": len(self._undone),
                "problem": self.problem,
                "regions": drawn.told(self._regions, self._index.about),
            }


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
