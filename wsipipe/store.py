"""The tile store: every pixel that a selected tile reads, once, in one sparse sharded Zarr v3 raster.

The schema is written down in ``docs/store.md``. A store is made under a temporary name beside its target, shard by
shard, each written whole by one writer and then entered in a journal; a run that was killed goes on after the last
entry. It takes its final name when it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec

from wsipipe import __version__
from wsipipe.artifacts import digest, plain
from wsipipe.errors import OutputError, SettingsError, StoreError, TileReadError, WsipipeError
from wsipipe.geometry import Grid, intersect
from wsipipe.raster import CHUNK, ChunkRaster, Pixels, Raster, open_slide_raster, slide_grid
from wsipipe.settings import SlideSettings, StoreSettings, TissueSettings, determining
from wsipipe.slide.protocol import Level, MppSource, SlideInfo
from wsipipe.tiling import TILE, TileGrid, pixels_read, select_tiles
from wsipipe.tissue import Tissue
from wsipipe.units import Box, Pair

SCHEMA = 1
JOURNAL = "journal.jsonl"
FILL = 255
Mask = NDArray[np.bool_]
Progress = Callable[[int, int], None]
"""Called with the number of chunks done and of all chunks."""


@dataclass(frozen=True, eq=False)
class StorePlan:
    """What a store will hold, known before a pixel is read.

    Attributes
    ----------
    tiles : TileGrid
    selected : bool array (ny, nx)
        Tiles that will be analysed.
    chunks : bool array (rows, columns)
        512 px squares that they read.
    about : dict
        JSON of everything that determines the content; its digest tells whether a store on disk is this one.
    shard : int
        Side of a shard in grid pixels.
    """

    tiles: TileGrid
    selected: Mask
    chunks: Mask
    about: dict[str, Any]
    shard: int

    @property
    def raw_bytes(self) -> int:
        """Bytes of the stored pixels before compression."""
        return int(self.chunks.sum()) * CHUNK * CHUNK * 3

    @property
    def identity(self) -> str:
        """Digest of all that determines the content."""
        return digest(self.about)

    def shards(self) -> list[tuple[int, int]]:
        """Return (column, row) of the shards that hold a chunk, row-major."""
        rows, columns = np.nonzero(self.chunks)
        per = self.shard // CHUNK
        return [(column, row) for row, column in sorted(set(zip(*(a // per for a in (rows, columns)), strict=True)))]

    def chunks_of(self, column: int, row: int) -> list[Box]:
        """Return the boxes (grid pixels, clipped to the grid) of the chunks to be stored in one shard."""
        per, whole = self.shard // CHUNK, (0, 0, *self.tiles.size)
        rows, columns = np.nonzero(self.chunks[row * per : (row + 1) * per, column * per : (column + 1) * per])
        corners = zip((columns + column * per) * CHUNK, (rows + row * per) * CHUNK, strict=True)
        return [intersect((int(x), int(y), int(x) + CHUNK, int(y) + CHUNK), whole) for x, y in corners]


def plan_store(
    raster: Raster, tissue: Tissue, tiles: TileGrid, settings: StoreSettings, tissue_settings: TissueSettings, reach: int
) -> StorePlan:
    """Return what a store of the tiles within *reach* grid pixels of *tissue* holds."""
    if settings.shard % CHUNK:
        raise SettingsError(f"shard is {settings.shard} px; expected a multiple of {CHUNK} px")
    selected = tissue_tiles(tiles, tissue, raster.grid, reach)
    slide = {key: value for key, value in plain(raster.slide).items() if key != "path"}
    about = {
        "schema": SCHEMA,
        "wsipipe": __version__,
        "fingerprint": raster.fingerprint,
        "slide": slide,
        "grid": plain(raster.grid),
        "tile": TILE,
        "overlap": tiles.overlap,
        "reach": reach,
        "codec": settings.codec,
        "shard": settings.shard,
        "tissue_settings": determining(tissue_settings) | {"tissue": tissue.source},
        "tissue": _tissue_json(tissue),
    }
    return StorePlan(tiles, selected, pixels_read(tiles, selected, CHUNK), about, settings.shard)


def tissue_tiles(tiles: TileGrid, tissue: Tissue, grid: Grid, reach: int) -> Mask:
    """Return which tiles lie within *reach* grid pixels of *tissue*, bool (ny, nx)."""
    if tissue.source == "none":
        return select_tiles(tiles, None)
    return select_tiles(tiles, lambda boxes: tissue.overlaps(boxes, grid.scale), reach)


# Writing -------------------------------------------------------------------------------------------------------------


def write_store(
    raster: Raster,
    plan: StorePlan,
    path: str | Path,
    *,
    workers: int = 1,
    max_bad: float = 0.05,
    progress: Progress | None = None,
) -> bool:
    """Write the store that *plan* describes; return False when it stood there already.

    Parameters
    ----------
    raster : Raster
        Where pixels come from. With several *workers* each thread reads from its own pickled copy.
    plan : StorePlan
    path : path
        A folder, replaced when complete; an unfinished run beside it (``.NAME.work``) is continued if it is the same.
    workers : int
        Threads that read pixels. The store's bytes do not depend on it.
    max_bad : float
        Largest share of unreadable pixels.
    progress : callable, optional

    Raises
    ------
    OutputError
        When the store cannot be written; what stood at *path* is untouched and finished shards are kept.
    TileReadError
        When more than *max_bad* of the pixels cannot be read.
    """
    target = Path(os.path.realpath(path))
    if _stands(target, plan):
        return False
    work = target.with_name(f".{target.name}.work")
    with _writing(path), _locked(work):
        done = _resume(work, plan)
        pixels = zarr.open_array(work / "pixels", mode="r+")
        bad = _write_shards(raster, plan, pixels, done, workers, progress)
        _refuse_too_bad(bad, plan, max_bad)
        _finish(work, target, plan, bad)
    return True


def _write_shards(
    raster: Raster,
    plan: StorePlan,
    pixels: Any,
    done: dict[tuple[int, int], list[Box]],
    workers: int,
    progress: Progress | None,
) -> list[Box]:
    """Write the shards that are not *done*; return the unreadable boxes of all."""
    total, count = int(plan.chunks.sum()), sum(len(plan.chunks_of(*shard)) for shard in done)
    journal = Path(pixels.store.root).parent / JOURNAL
    with ThreadPoolExecutor(workers) as pool:
        read = _reader(raster, workers)
        for column, row in (shard for shard in plan.shards() if shard not in done):
            boxes = plan.chunks_of(column, row)
            x0, y0, x1, y1 = _shard_box(plan, column, row)
            buffer = np.full((y1 - y0, x1 - x0, 3), FILL, np.uint8)
            bad: set[Box] = set()
            for box, (part, unreadable) in zip(boxes, pool.map(read, boxes), strict=True):
                buffer[box[1] - y0 : box[3] - y0, box[0] - x0 : box[2] - x0] = part
                bad |= unreadable
                count += 1
                if progress is not None:
                    progress(count, total)
            pixels[y0:y1, x0:x1] = buffer
            done[column, row] = sorted(bad)
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"shard": [column, row], "bad": sorted(bad)}) + "\n")
    return sorted(box for boxes in done.values() for box in boxes)


def _reader(raster: Raster, workers: int) -> Callable[[Box], tuple[Pixels, set[Box]]]:
    """Return a function that reads a chunk and says which parts of it are bad, with one raster per thread."""
    local, frozen = threading.local(), pickle.dumps(raster) if workers > 1 else b""

    def read(box: Box) -> tuple[Pixels, set[Box]]:
        if not hasattr(local, "raster"):
            local.raster = pickle.loads(frozen) if frozen else raster
        pixels = local.raster.read(box)
        return pixels, {bad for bad in local.raster.bad if intersect(bad, box) == bad}

    return read


def _shard_box(plan: StorePlan, column: int, row: int) -> Box:
    x, y = column * plan.shard, row * plan.shard
    return intersect((x, y, x + plan.shard, y + plan.shard), (0, 0, *plan.tiles.size))


def _resume(work: Path, plan: StorePlan) -> dict[tuple[int, int], list[Box]]:
    """Return the shards that *work* holds already; empty it first when it is not of this *plan*."""
    if _read_about(work).get("identity") == plan.identity:
        return dict(_journal(work / JOURNAL))
    for entry in work.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    _create(work, plan)
    return {}


def _journal(path: Path) -> Iterator[tuple[tuple[int, int], list[Box]]]:
    """Yield the shards that were written; a line cut short by a crash is not one."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            yield tuple(entry["shard"]), [tuple(box) for box in entry["bad"]]


def _create(work: Path, plan: StorePlan) -> None:
    """Write everything but the pixels; the group's attributes come last, so that half a folder is not resumed."""
    width, height = plan.tiles.size
    codec = {"zstd": ZstdCodec(level=1), "lz4": BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle", typesize=1)}
    zarr.create_array(
        work / "pixels",
        shape=(height, width, 3),
        chunks=(CHUNK, CHUNK, 3),
        shards=(plan.shard, plan.shard, 3),
        dtype="uint8",
        fill_value=FILL,
        compressors=codec.get(plan.about["codec"]),
        dimension_names=("y", "x", "colour"),
    )
    scale = plan.about["grid"]["scale"]
    coords = np.rint(plan.tiles.boxes()[plan.selected][:, :2] * np.array(scale)).astype(np.int64)
    for name, data in {"selected": plan.selected, "chunks": plan.chunks, "coords": coords}.items():
        zarr.create_array(work / name, data=data, chunks=tuple(max(1, n) for n in data.shape))
    mask, mask_scale = _tissue_mask(plan)
    zarr.create_array(work / "tissue", data=mask, chunks=mask.shape, attributes={"scale": list(mask_scale)})
    attributes = {"wsipipe": {**plan.about, "identity": plan.identity, "complete": False, "bad": []}}
    zarr.create_group(work, attributes=attributes)


def _tissue_mask(plan: StorePlan) -> tuple[Mask, Pair]:
    """Return the tissue as a small picture, and base pixels per pixel of it."""
    grid, (width, height) = plan.about["grid"], plan.about["slide"]["levels"][0]["size"]
    wanted = plan.about["tissue_settings"]["tissue_mpp"]
    sx, sy = (max(1.0, wanted * s / m) for s, m in zip(grid["scale"], grid["mpp"], strict=True))
    box = (0, 0, math.ceil(width / sx), math.ceil(height / sy))
    return _tissue_from(plan.about["tissue"]).mask((sx, sy), box), (sx, sy)


def _finish(work: Path, target: Path, plan: StorePlan, bad: list[Box]) -> None:
    """Mark the store complete and give it its name."""
    done = {**plan.about, "identity": plan.identity, "complete": True, "bad": [list(box) for box in bad]}
    zarr.open_group(work, mode="r+").update_attributes({"wsipipe": done})
    (work / JOURNAL).unlink(missing_ok=True)
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        os.rename(target, old)
    os.rename(work, target)
    shutil.rmtree(old, ignore_errors=True)


def _refuse_too_bad(bad: Iterable[Box], plan: StorePlan, max_bad: float) -> None:
    pixels = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in bad)
    share = pixels / max(1, int(plan.chunks.sum()) * CHUNK * CHUNK)
    if share > max_bad:
        raise TileReadError(
            f"{share:.1%} of the pixels to be stored cannot be read; expected at most {max_bad:.1%} (--max-bad-tiles)"
        )


def _stands(target: Path, plan: StorePlan) -> bool:
    """Whether *target* is the complete store of *plan*; refuses a path that something else occupies."""
    about = _read_about(target)
    if target.exists() and not about:
        raise OutputError(f"cannot write {target}: something that is not a tile store is there; give another name")
    return bool(about) and about["identity"] == plan.identity and about["complete"]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make *folder* and hold it for this process; the lock goes when the process does."""
    folder.mkdir(exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise OutputError(f"another process is writing {folder}; wait for it, or give another name") from error
    finally:
        os.close(handle)


@contextlib.contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    """Turn a refusal of the file system into one line."""
    try:
        yield
    except WsipipeError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {why}; finished parts are kept, run again to go on") from error
