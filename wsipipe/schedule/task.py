"""The frozen plan of a slide, and the board that says which task may run next.

Two tasks for every block: *predict* forwards the tiles that the block owns and leaves their maps in scratch files;
*cells* blends the maps around the block, extracts its cells and leaves them in a part file. A cells task waits for
the predict tasks of the blocks around it; scratch files go as soon as nobody waits for them.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsipipe.artifacts import atomic_path, digest, from_json, write_json
from wsipipe.cells.instances import CellRules, halo
from wsipipe.cells.polygons import expand_px
from wsipipe.geometry import Grid, grow, intersect, is_empty
from wsipipe.plugins import stitch
from wsipipe.plugins.levels import Levels
from wsipipe.plugins.maps import is_objects
from wsipipe.raster.tiling import TILE, BlockGrid, TileGrid, tile_owners
from wsipipe.schedule.receipt import CELLS, PREDICT, Receipt, Task
from wsipipe.settings import GridSettings, RunSettings, SlideSettings
from wsipipe.stain import Change
from wsipipe.stain.unmix import HE, StainVectors, vectors_of
from wsipipe.units import Box

__all__ = ["CELLS", "PREDICT", "Board", "Plan", "Receipt", "Task"]

SCRATCH = 2
"""Form of the scratch files; a run whose files have another one begins anew."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything a worker needs to know of a run; written to its working folder and never changed.

    Attributes
    ----------
    source : str
        Slide, or tile store.
    model : str
        Name of a shipped model, or checkpoint file.
    model_sha256 : str
        Of that file.
    recipe : dict
        Numerical recipe that every worker must have; see :class:`wsipipe.infer.predict.Recipe`.
    names : tuple of str
        Maps of the model, in order.
    bounds : Box or None
        Only cells with their centroid in here are wanted; base pixels.
    selected : bool (ny, nx)
        Tiles to forward.
    fingerprint : str
        Of the run: slide, model, settings, recipe, version.
    stamp : (int, int)
        Bytes and time of change (ns) of the original; work on another one is not gone on with.
    stain : ((float, float, float), (float, float, float)) or ()
        Change that gives the slide's pixels the colours of the training images; see :mod:`wsipipe.stain`.
    stain_vectors : dict
        Stains that cells are measured by; see :meth:`wsipipe.stain.unmix.StainVectors.as_dict`.
    tiling : (int, int) or ()
        Side and overlap of the tiles of a plug-in; wsipipe's own networks have tiles of one side.
    levels : three pairs of float, or ()
        Black and white of each channel for a plug-in; see :mod:`wsipipe.plugins.levels`.
    """

    source: str
    slide: SlideSettings
    grid: GridSettings
    run: RunSettings
    model: str
    working: Grid
    rules: CellRules
    names: tuple[str, ...]
    classes: tuple[str, ...]
    expand_um: float
    bounds: Box | None
    slide_fingerprint: str
    fingerprint: str
    selected: NDArray[np.bool_]
    model_sha256: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    shift: tuple[int, int] = (0, 0)
    stain: Change = ()
    stamp: tuple[int, int] = (0, 0)
    stain_vectors: dict[str, str] = field(default_factory=HE.as_dict)
    tiling: tuple[int, ...] = ()
    levels: Levels = ()

    @cached_property
    def vectors(self) -> StainVectors:
        """Stains that cells are measured by."""
        return vectors_of(self.stain_vectors)

    @cached_property
    def tiles(self) -> TileGrid:
        """The global grid of tiles."""
        side, overlap = self.tiling or (TILE, self.grid.overlap)
        return TileGrid(self.working.size, overlap, side)

    @cached_property
    def blocks(self) -> tuple[Box, ...]:
        """Cores of all blocks, row-major, in grid pixels."""
        return tuple(block.core for block in self.block_grid.blocks())

    @property
    def block_grid(self) -> BlockGrid:
        """How the slide is cut into blocks."""
        return BlockGrid(self.working.size, self.run.block, self.shift)

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """Block that owns each tile, int64 (ny, nx)."""
        return tile_owners(self.tiles, self.block_grid)

    @cached_property
    def halo(self) -> int:
        """How far cells of a block depend on pixels around it, in grid pixels."""
        grown = expand_px(self.expand_um, self.working)
        if is_objects(self.names):
            return stitch.halo(self.rules, grown)
        return halo(self.rules, self.names, grown)

    def window(self, block: int) -> Box:
        """Return the part of the slide that the cells of *block* depend on."""
        return intersect(grow(self.blocks[block], self.halo), (0, 0, *self.working.size))

    def near(self, block: int) -> Box:
        """Return the part of the slide in which the cells of *block* lie."""
        return intersect(grow(self.blocks[block], self.rules.max_diameter_px), (0, 0, *self.working.size))

    def tiles_over(self, box: Box) -> list[tuple[int, int]]:
        """Return (i, j) of the selected tiles that overlap *box*, row-major."""
        i0, j0, i1, j1 = self.tiles.tiles_over(box)
        rows, columns = np.nonzero(self.selected[j0:j1, i0:i1])
        return [(i0 + int(i), j0 + int(j)) for j, i in zip(rows, columns, strict=True)]

    def has_tiles(self, box: Box) -> bool:
        """Whether some selected tile overlaps *box*."""
        i0, j0, i1, j1 = self.tiles.tiles_over(box)
        return bool(self.selected[j0:j1, i0:i1].any())

    def tiles_of(self, block: int) -> list[tuple[int, int]]:
        """Return (i, j) of the selected tiles that *block* owns, row-major."""
        return [
            (i, j) for i, j in self.tiles_over(grow(self.blocks[block], self.tiles.side)) if self.owners[j, i] == block
        ]

    def blocks_over(self, box: Box) -> list[int]:
        """Return the blocks whose core overlaps *box*, in order."""
        x0, y0, x1, y1 = intersect(box, (0, 0, *self.working.size))
        if is_empty((x0, y0, x1, y1)):
            return []
        xs, ys = self._edges
        columns = range(*_span(xs, x0, x1))
        return [row * (len(xs) - 1) + column for row in range(*_span(ys, y0, y1)) for column in columns]

    @cached_property
    def _edges(self) -> tuple[list[int], list[int]]:
        """Borders between blocks: x, y."""
        return self.block_grid.edges(0), self.block_grid.edges(1)

    @property
    def key(self) -> str:
        """Name of the run's folder of scratch files: what they are valid for."""
        return digest([SCRATCH, self.fingerprint, self.run.block, self.shift])[:16]

    def save(self, folder: Path) -> None:
        """Write the plan into *folder*."""
        data = asdict(self)
        data.pop("selected")
        with atomic_path(folder / "selected.npy") as path, path.open("wb") as file:
            np.save(file, self.selected)
        write_json(folder / "plan.json", data)

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """Return the plan that :meth:`save` wrote."""
        data: dict[str, Any] = from_json((folder / "plan.json").read_text("utf-8"))
        numbers: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.pop("working").items()}
        parts: dict[str, Any] = {
            "working": Grid(**numbers),
            "slide": SlideSettings(**data.pop("slide")),
            "grid": GridSettings(**data.pop("grid")),
            "run": RunSettings(**data.pop("run")),
            "rules": CellRules(**data.pop("rules")),
        }
        lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**parts, selected=np.load(folder / "selected.npy"), **lists)


def _span(edges: Sequence[int], start: int, stop: int) -> tuple[int, int]:
    """Return the half-open range of the intervals between *edges* that overlap [start, stop)."""
    return bisect_right(edges, start) - 1, bisect_left(edges, stop)


class Board:
    """Which tasks are done, which may run, and whose scratch is no longer needed.

    Parameters
    ----------
    plan : Plan
    predicted, finished : iterable of int
        Blocks whose maps, and whose cells, an earlier run left behind.
    """

    def __init__(self, plan: Plan, predicted: Iterable[int] = (), finished: Iterable[int] = ()) -> None:
        covered = [b for b, core in enumerate(plan.blocks) if plan.has_tiles(core)]
        owners = set(np.unique(plan.owners[plan.selected]).tolist())
        self.all_cells = covered
        self.all_predict = sorted(set(covered) | owners)
        some = set(self.all_predict)
        self._needs = {b: self._sources(plan, b) & some for b in covered}
        self.finished = set(finished) & set(covered)
        self._readers: dict[int, set[int]] = {b: set() for b in self.all_predict}
        for block in set(covered) - self.finished:
            for source in self._needs[block]:
                self._readers[source].add(block)
        wanted = [b for b in self.all_predict if self._readers[b]]
        self.predicted = set(predicted) & set(wanted)
        self._predict = [b for b in wanted if b not in self.predicted][::-1]
        self._lacks = {b: len(self._needs[b] - self.predicted) for b in covered if b not in self.finished}
        self._ready = [b for b, lacks in self._lacks.items() if not lacks]  # in order, so a heap
        self._running: set[Task] = set()

    @staticmethod
    def _sources(plan: Plan, block: int) -> frozenset[int]:
        """Return the blocks whose maps or pixels the cells of *block* depend on, and others without tiles."""
        window = plan.window(block)
        i0, j0, i1, j1 = plan.tiles.tiles_over(window)
        owners = plan.owners[j0:j1, i0:i1][plan.selected[j0:j1, i0:i1]].tolist()
        return frozenset(owners).union(plan.blocks_over(window))

    @property
    def done(self) -> bool:
        """Whether nothing is left to run or running."""
        return not (self._predict or self._lacks or self._running)

    @property
    def to_predict(self) -> Sequence[int]:
        """Blocks that still have to be predicted, in order."""
        return self._predict[::-1]

    def take(self, *kinds: str) -> Task | None:
        """Return the next task (of these *kinds*) that may run and mark it running, else None. Cells come first."""
        if self._ready and (not kinds or CELLS in kinds):
            block = heapq.heappop(self._ready)
            del self._lacks[block]
            return self._start(Task(CELLS, block))
        wanted = self._predict and (not kinds or PREDICT in kinds)
        return self._start(Task(PREDICT, self._predict.pop())) if wanted else None

    @property
    def upcoming(self) -> int | None:
        """The block that will be predicted next."""
        return self._predict[-1] if self._predict else None

    def ready(self, kind: str) -> int:
        """Return how many tasks of *kind* may run."""
        return len(self._predict if kind == PREDICT else self._ready)

    def _start(self, task: Task) -> Task:
        self._running.add(task)
        return task

    def finish(self, task: Task) -> list[int]:
        """Mark *task* done; return the blocks whose maps nobody needs any more."""
        self._running.discard(task)
        if task.kind == PREDICT:
            self.predicted.add(task.block)
            for reader in self._readers[task.block]:
                self._lacks[reader] -= 1
                if not self._lacks[reader]:
                    heapq.heappush(self._ready, reader)
            return []
        self.finished.add(task.block)
        free = []
        for source in sorted(self._needs[task.block]):
            self._readers[source].discard(task.block)
            if not self._readers[source]:
                free.append(source)
        return free
