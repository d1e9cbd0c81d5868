"""What a worker does: forward the tiles of a block, extract the cells of a block."""

from __future__ import annotations

import pickle
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from wsipipe.artifacts import write_json
from wsipipe.cells.instances import Cells, find_cells
from wsipipe.cells.measure import measure
from wsipipe.cells.polygons import expand, trace
from wsipipe.formats.parquet import write_part
from wsipipe.formats.table import cells_table
from wsipipe.geometry import intersect, is_empty
from wsipipe.infer.blend import blend
from wsipipe.plugins.levels import Levels
from wsipipe.plugins.maps import is_objects
from wsipipe.plugins.stitch import BAND_UM, stitch
from wsipipe.raster import Raster, SlideRaster
from wsipipe.schedule.clock import Clock
from wsipipe.schedule.network import checked_predictor
from wsipipe.schedule.progress import SoFar
from wsipipe.schedule.resources import allowed_cores
from wsipipe.schedule.scratch import Scratch, pieces, read_maps, read_pixels, write_maps
from wsipipe.schedule.task import PREDICT, Plan, Receipt, Task
from wsipipe.schedule.threads import Threads
from wsipipe.slide import changed
from wsipipe.stain import is_glass, normalise
from wsipipe.store import open_raster
from wsipipe.tissue import Tissue
from wsipipe.units import Box

Maps = Callable[[], NDArray[np.uint8]]
"""Waits for a batch of tiles that the network has begun with, and returns its maps (n, K, side, side)."""
Batch = list[tuple[int, int]]
"""Tiles (i, j) that are read together."""
Read = list[tuple[tuple[int, int], NDArray[np.uint8]]]
"""Those of them that show more than glass, with their pixels."""
Reading = tuple[deque[Future[Read]], Iterator[tuple[int, Batch]]]
"""Batches of a block that are being read, and those to come, numbered."""


class Worker:
    """One process's view of a run: the plan, and slide, model and tissue opened once, when first needed.

    Parameters
    ----------
    folder : Path
        Working folder of the run.
    predictor : Predictor, optional
        A loaded model, for the process that has one already.
    so_far : callable, optional
        Hears after each batch how many tiles of a block have been forwarded.
    """

    def __init__(self, folder: Path, predictor: Any = None, so_far: SoFar | None = None) -> None:
        self.plan = Plan.load(folder)
        self.scratch = Scratch(folder)
        self.so_far = so_far
        self._given = predictor
        self._turn = threading.Lock()
        self._reading: dict[int, Reading] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):  # after an interrupt threads may still be reading
            self.close()

    def close(self) -> None:
        """Close the slide, if it was opened."""
        for raster in vars(self).pop("rasters", ()):
            if isinstance(raster, SlideRaster):
                raster.close()

    @property
    def readers(self) -> int:
        """Threads that read ahead of the network."""
        on_gpu = self.plan.recipe.get("device", "cpu") != "cpu"
        return self.plan.run.readers or (min(4, allowed_cores()) if on_gpu else 1)

    @cached_property
    def rasters(self) -> tuple[Raster, ...]:
        """Pixels of the slide, which each reading thread opens for itself: one object decodes one region at a time."""
        p = self.plan
        raster = open_raster(p.source, p.slide, p.grid.target_mpp, p.grid.allow_upsample)
        if raster.fingerprint != p.slide_fingerprint:
            raise changed(p.source)
        return (raster, *(pickle.loads(pickle.dumps(raster)) for _ in range(self.readers - 1)))

    @property
    def raster(self) -> Raster:
        """Pixels of the slide."""
        return self.rasters[0]

    @cached_property
    def predictor(self) -> Any:
        """The model, on its device."""
        return self._given or checked_predictor(self.plan)

    @property
    def given(self) -> tuple[Levels, ...]:
        """What the network is told of the slide beside its tiles: plug-ins, the levels."""
        return (self.plan.levels,) if self.plan.levels else ()

    @cached_property
    def tissue(self) -> Tissue:
        """Where cells are wanted."""
        shape = shapely.from_wkb((self.scratch.folder / "tissue.wkb").read_bytes())
        return Tissue(tuple(shapely.get_parts(shape)), 0.0, "file")

    def run(self, task: Task) -> Receipt:
        """Do *task*; its files are there, whole, when this returns."""
        return self._predict(task) if task.kind == PREDICT else self._cells(task)

    # --- predict: tiles → maps -------------------------------------------------------------------------------------

    def _predict(self, task: Task) -> Receipt:
        with Threads(self.readers) as ahead:
            return self.begin(task, ahead)()

    def begin(self, task: Task, ahead: Threads, then: int | None = None) -> Callable[[], Receipt]:
        """Forward the tiles of a predict *task*; return what writes their maps, which another thread may do.

        The threads *ahead* read, :attr:`readers` of them, at the end also the first tiles of *then*, the next block.
        """
        clock = Clock()
        maps = self._forward(task.block, ahead, then, clock)
        return lambda: self._written(task, maps, clock)

    def _written(self, task: Task, maps: dict[tuple[int, int], NDArray[np.uint8]], clock: Clock) -> Receipt:
        tiles, core = self.plan.tiles_of(task.block), self.plan.blocks[task.block]
        with clock("decode"):
            pixels = {box: self.raster.read(box) for box in pieces(core) if self.plan.has_tiles(box)}
        read = [self.plan.tiles.box(i, j) for i, j in tiles] + [core]
        known = sorted({box for raster in self.rasters for box in raster.bad})
        bad = tuple(b for b in known if any(not is_empty(intersect(b, box)) for box in read))
        with clock("scratch"):
            if bad:
                write_json(self.scratch.bad(task.block), bad)
            write_maps(self.scratch.maps(task.block), maps, pixels, bad)
        return Receipt(task, len(tiles), dict(clock.seconds), len(bad))

    def _forward(
        self, block: int, ahead: Threads, then: int | None, clock: Clock
    ) -> dict[tuple[int, int], NDArray[np.uint8]]:
        """Return the maps of those tiles of *block* that show more than glass; pixels are read ahead of the network."""
        maps: dict[tuple[int, int], NDArray[np.uint8]] = {}
        shown = self._shown(block, ahead, then, clock)
        before: tuple[list[tuple[int, int]], Maps] | None = None
        while found := list(islice(shown, self.predictor.batch)):
            batch, pixels = [tile for tile, _ in found], np.stack([rgb for _, rgb in found])
            with clock("network"):
                begun = batch, self.maps_of(batch, pixels)
                if before:  # a GPU is busy with what has just begun
                    maps.update(zip(before[0], before[1](), strict=True))
                    self._tell(block, len(maps))
            before = begun
        with clock("network"):
            maps.update(zip(before[0], before[1](), strict=True) if before else ())
            self._tell(block, len(maps))
        return maps

    def _tell(self, block: int, tiles: int) -> None:
        if self.so_far is not None:
            self.so_far(block, tiles)

    def _shown(self, block: int, ahead: Threads, then: int | None, clock: Clock) -> Iterator[Any]:
        """Yield those tiles of *block* that show more than glass, with their pixels; a few batches are read *ahead*."""
        pending, batches = self._reading.pop(block) if block in self._reading else self._started(block, ahead)
        while pending:
            with clock("decode"):
                read = pending.popleft().result()
            pending.extend(more := [ahead.submit(self._read, *one) for one in islice(batches, 1)])
            if not more and then is not None and then not in self._reading:
                self._reading[then] = self._started(then, ahead)
            yield from read

    def _started(self, block: int, ahead: Threads) -> Reading:
        """Begin to read the tiles of *block*."""
        tiles, size = self.plan.tiles_of(block), self.predictor.batch
        batches = enumerate(tiles[k : k + size] for k in range(0, len(tiles), size))
        return deque(ahead.submit(self._read, *one) for one in islice(batches, self.readers + 1)), batches

    def maps_of(self, batch: list[tuple[int, int]], pixels: NDArray[np.uint8]) -> Maps:
        """Begin with the tiles (i, j) in *batch*, whose pixels are (n, side, side, 3); return what gives their maps."""
        with self._turn:  # a worker process may be given several tasks at a time
            begun: Maps = self.predictor.begin(pixels, *self.given)
        return begun

    def _read(self, k: int, batch: Batch) -> Read:
        """Return those tiles of batch *k* that show more than glass, with the pixels that the network sees."""
        raster = self.rasters[k % self.readers]
        read = [(tile, raster.read(self.plan.tiles.box(*tile))) for tile in batch]
        return [(tile, normalise(rgb, self.plan.stain)) for tile, rgb in read if not is_glass(rgb)]

    # --- cells: maps → cells ---------------------------------------------------------------------------------------

    def _cells(self, task: Task) -> Receipt:
        plan, clock = self.plan, Clock()
        window = plan.window(task.block)
        with clock("scratch"):
            tiles = self._tiles(window)
            rgb, bad = self._pixels(window, plan.near(task.block))
        core, size, around = plan.blocks[task.block], plan.working.size, plan.expand_um > 0
        if is_objects(plan.names):
            band = BAND_UM / plan.working.mpp[0]
            with clock("cells"):
                cells, foreground = stitch(
                    window, plan.tiles, tiles, plan.names, core, plan.rules, band, neighbours=around
                )
        else:
            with clock("blend"):
                maps = blend(window, plan.tiles, tiles, len(plan.names))
            with clock("cells"):
                cells = find_cells(maps, plan.names, window, core, size, plan.rules, neighbours=around)
                foreground = maps[plan.names.index("foreground")]
        table = self._table(cells, foreground, rgb, bad, clock)
        with clock("scratch"):
            write_part(table, self.scratch.part(task.block))
        return Receipt(task, table.num_rows, dict(clock.seconds))

    def _tiles(self, window: Box) -> dict[tuple[int, int], NDArray[np.uint8]]:
        """Return the maps of the tiles over *window* that show more than glass, from the files of their owners."""
        by_owner: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for i, j in self.plan.tiles_over(window):
            by_owner[int(self.plan.owners[j, i])].append((i, j))
        maps: dict[tuple[int, int], NDArray[np.uint8]] = {}
        for owner, tiles in by_owner.items():
            maps |= read_maps(self.scratch.maps(owner), tiles, len(self.plan.names), self.plan.tiles.side)
        return maps

    def _pixels(self, window: Box, near: Box) -> tuple[NDArray[np.uint8], list[Box]]:
        """Return the pixels of *window* (background outside *near* and where none was read), and unreadable boxes."""
        background = np.array(self.raster.slide.background, np.uint8)
        rgb = np.broadcast_to(background, (window[3] - window[1], window[2] - window[0], 3)).copy()
        part = rgb[near[1] - window[1] : near[3] - window[1], near[0] - window[0] : near[2] - window[0]]
        bad: set[Box] = set()
        for block in self.plan.blocks_over(window):
            path = self.scratch.maps(block)
            if path.exists():
                bad.update(read_pixels(path, self.plan.blocks[block], near, part))
        return rgb, sorted(bad)

    def _table(
        self, cells: Cells, foreground: NDArray[np.uint8], rgb: NDArray[np.uint8], bad: list[Box], clock: Clock
    ) -> pa.Table:
        plan = self.plan
        with clock("polygons"):
            size = self.raster.slide.size
            nuclei = trace(cells, foreground, plan.rules.threshold, plan.working, base_size=size)
            grown = expand(cells, nuclei, plan.expand_um, plan.working, base_size=size) if plan.expand_um else None
        with clock("measure"):
            measures = measure(cells, nuclei, rgb, plan.working, plan.vectors)
            keep = self._wanted(cells, measures["x"], measures["y"], bad)
        with clock("measure"):
            outlines, inner = (nuclei, None) if grown is None else (grown, nuclei)
            table = cells_table(
                cells,
                outlines,
                measures,
                fingerprint=plan.slide_fingerprint,
                classes=plan.classes,
                nuclei=inner,
            )
            return table.filter(pa.array(keep))

    def _wanted(
        self, cells: Cells, x: NDArray[np.float64], y: NDArray[np.float64], bad: list[Box]
    ) -> NDArray[np.bool_]:
        """Return which cells lie in tissue and inside the bounds, and touch nothing unreadable."""
        keep = self.tissue.contains(x, y)
        if self.plan.bounds is not None:
            x0, y0, x1, y1 = self.plan.bounds
            keep &= (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        left, top, right, bottom = cells.box.T
        for x0, y0, x1, y1 in bad:  # an outline reaches up to a pixel beyond its pixels
            keep &= ~((left <= x1) & (right >= x0) & (top <= y1) & (bottom >= y0))
        return keep
