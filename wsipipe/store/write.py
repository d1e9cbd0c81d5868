"""Writing a tile store, shard by shard; a run that was killed goes on after the last finished shard.

A store is made under a temporary name beside its target. One shard has one writer, is written whole and only then
entered in a journal. The store takes its final name when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from wsipipe.artifacts import digest
from wsipipe.errors import OutputError, TileReadError, WsipipeError
from wsipipe.geometry import intersect
from wsipipe.raster import CHUNK, Pixels, Raster, SlideRaster
from wsipipe.runs import Work, claimed, flush, work_of
from wsipipe.store.plan import Mask, StorePlan, tissue_of
from wsipipe.store.read import read_about, shard_files
from wsipipe.units import Box, Pair

FILL = 255
Progress = Callable[[int, int], None]
"""Called with the number of chunks done and of all chunks."""


def write_store(
    raster: Raster,
    plan: StorePlan,
    path: str | Path,
    *,
    workers: int = 1,
    max_bad: float = 0.05,
    progress: Progress | None = None,
    again: bool = False,
) -> bool:
    """Write the store that *plan* describes; return False when it stood there already, with every pixel.

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
    again : bool
        Also when it stands there.

    Raises
    ------
    OutputError
        When the store cannot be written, or another process writes it; what stood at *path* is untouched and finished
        shards are kept.
    TileReadError
        When more than *max_bad* of the pixels cannot be read.
    SlideChanged
        When the slide is not any more the file that was opened.
    """
    target = Path(os.path.realpath(path))
    if _stands(target, plan) and not again:
        return False
    with writing(path), claimed(target):
        work = Work(work_of(target), digest([plan.identity, _stamp_of(raster)]))
        if not work.resumed:
            _create(work.folder, plan)
            work.begin()
        bad = _write_shards(raster, plan, work, workers, progress)
        _refuse_too_bad(bad, plan, max_bad)
        if isinstance(raster, SlideRaster):
            raster.check_same()
        _complete(work.folder, plan, bad)
        work.publish(target)
    return True


def _write_shards(raster: Raster, plan: StorePlan, work: Work, workers: int, progress: Progress | None) -> list[Box]:
    """Write the shards that *work* does not hold yet; return the unreadable boxes of all."""
    pixels: Any = zarr.open_array(work.folder / "pixels", mode="r+")
    done = {tuple(note["shard"]): [tuple(box) for box in note["bad"]] for note in work.notes()}
    total, count = int(plan.chunks.sum()), sum(len(plan.chunks_of(*shard)) for shard in done)
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
            flush(work.folder / f"pixels/c/{row}/{column}/0")
            done[column, row] = sorted(bad)
            work.note({"shard": [column, row], "bad": sorted(bad)})
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


def _stamp_of(raster: Raster) -> str:
    return json.dumps(raster.stamp if isinstance(raster, SlideRaster) else None)


def _create(work: Path, plan: StorePlan) -> None:
    """Write everything but the pixels; the group's attributes come last, so that half a folder is not resumed."""
    width, height = plan.tiles.size
    zarr.create_array(
        work / "pixels",
        shape=(height, width, 3),
        chunks=(CHUNK, CHUNK, 3),
        shards=(plan.shard, plan.shard, 3),
        dtype="uint8",
        fill_value=FILL,
        compressors=ZstdCodec(level=1, checksum=True) if plan.about["codec"] == "zstd" else Crc32cCodec(),
        dimension_names=("y", "x", "colour"),
    )
    arrays = {"selected": plan.selected, "chunks": plan.chunks, "coords": plan.coords()}
    for name, data in arrays.items():
        chunks = tuple(max(1, n) for n in data.shape)
        zarr.create_array(work / name, data=data, chunks=chunks, compressors=ZstdCodec(checksum=True))
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
    return tissue_of(plan.about["tissue"]).mask((sx, sy), box), (sx, sy)


def _complete(work: Path, plan: StorePlan, bad: list[Box]) -> None:
    """Mark the store complete."""
    files = shard_files(work)
    about = {**plan.about, "identity": plan.identity, "complete": True, "shard_files": files}
    done = about | {"bad": [list(box) for box in bad]}
    zarr.open_group(work, mode="r+").update_attributes({"wsipipe": done})


def _refuse_too_bad(bad: Iterable[Box], plan: StorePlan, max_bad: float) -> None:
    pixels = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in bad)
    share = pixels / max(1, int(plan.chunks.sum()) * CHUNK * CHUNK)
    if share > max_bad:
        raise TileReadError(
            f"{share:.1%} of the pixels to be stored cannot be read; expected at most {max_bad:.1%} (--max-bad-tiles)"
        )


def _stands(target: Path, plan: StorePlan) -> bool:
    """Whether *target* is the complete store of *plan*; refuses a path that something else occupies."""
    about = read_about(target)
    if target.exists() and not about:
        raise OutputError(f"cannot write {target}: something that is not a tile store is there; give another name")
    return bool(about) and about["identity"] == plan.identity and about["complete"] and not about["bad"]


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn a refusal of the file system into one line."""
    try:
        yield
    except WsipipeError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {why}; finished parts are kept, run again to go on") from error
