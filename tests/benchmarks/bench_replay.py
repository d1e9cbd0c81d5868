"""Pixel rate of everything but the network, and how its cost grows with area and with cells.

    python -m tests.benchmarks.bench_replay [--tiles 9] [--rounds 3]

Maps are replayed in the network's place; decoding, blending, cells, polygons, measurements, Parquet and GeoJSON are
wsipipe's own. Slides of 1, 4 and 16 times the area at one density, and of 1, 4 and 16 times the cells on one area.
Sides are whole numbers of tiles (--tiles of them, twice and four times as many), so that no slide has more to forward
for its size than another. Told is the least CPU of --rounds, slides alternating.

Beside it, in the same process, each on one core: JPEG decoding of the same tiles, scikit-image's watershed of the same
maps, and gzip -1 of the GeoJSON written. All rates are per second of CPU, so that they hold on a busy machine.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from scipy import ndimage as ndi
from skimage.segmentation import watershed

from tests.benchmarks.pattern import PERIOD, PatternPredictor, pattern_maps, write_pattern_slide
from wsipipe.raster.tiling import TILE
from wsipipe.schedule import pool, work
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores
from wsipipe.schedule.task import Board
from wsipipe.schedule.work import Worker
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.prepare import prepare
from wsipipe.segmentation.publish import Done, publish
from wsipipe.segmentation.run import open_work
from wsipipe.settings import GridSettings, RunSettings, TissueSettings

DENSITY = 7
"""Nuclei along 192 px of the pattern: 5,317/mm2."""


@dataclass(frozen=True)
class Run:
    """What a run with replayed maps took."""

    megapixels: float
    cells: int
    cpu: float
    wall: float
    stages: dict[str, float]


def side_of(tiles: int) -> int:
    """Return the side in px of a slide that so many tiles cover exactly."""
    overlap = GridSettings().overlap
    return tiles * (TILE - overlap) + overlap


def replay(slide: Path, side: int, nuclei: int, folder: Path) -> Run:
    """Segment *slide* with replayed maps."""
    out = folder / "cells.parquet"
    everything = TissueSettings(tissue="none")
    job = SegmentJob(str(slide), (out, out.with_suffix(".geojson")), tissue=everything, run=RunSettings(device="cpu"))
    prepared = prepare(job, Progress())
    gc.freeze()  # as a run does
    worker = Worker(open_work(job.work, prepared).folder, PatternPredictor(prepared.predictor, nuclei=nuclei))
    receipts: list[Any] = []
    start, cpu = time.perf_counter(), time.process_time()
    pool.run(worker, Board(prepared.plan), receipts.append, allowed_cores())
    ran = time.process_time()
    result = publish(job, prepared, Done(receipts), Progress())
    ended = time.process_time()
    took = ended - cpu, time.perf_counter() - start
    stages: dict[str, float] = {}
    for stage, seconds in (item for receipt in receipts for item in receipt.seconds.items()):
        stages[stage] = stages.get(stage, 0.0) + seconds
    stages |= {"reading ahead and the rest": ran - cpu - sum(stages.values()), "write": ended - ran}
    gc.unfreeze()
    return Run(side * side / 1e6, result.cells, *took, stages)


class CpuClock(work.Clock):
    """Counts seconds of CPU of its thread."""

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.thread_time()
        try:
            yield
        finally:
            self.seconds[stage] += time.thread_time() - start


def cpu_rate(amount: float, work: Callable[[], Any]) -> float:
    """Return *amount* per second of CPU that *work* takes, the best of three."""
    seconds = []
    for _ in range(3):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return amount / min(seconds)


def jpeg_decode(slide: Path) -> float:
    """Return the megapixels per second of decoding the slide's own JPEG tiles with OpenCV."""
    with tifffile.TiffFile(slide) as tiff:
        page = tiff.pages[0]
        segments = [tiff.filehandle.read_segments([o], [n]) for o, n in zip(page.dataoffsets, page.databytecounts)]
        blobs = [np.frombuffer(next(s)[0], np.uint8) for s in segments]
    return cpu_rate(len(blobs) * 256**2 / 1e6, lambda: [cv2.imdecode(b, cv2.IMREAD_COLOR) for b in blobs])


def reference_watershed(repeats: int = 5) -> float:
    """Return the megapixels per second of scikit-image's watershed on the replayed maps."""
    maps = np.tile(pattern_maps(DENSITY)[:, :PERIOD, :PERIOD], (1, repeats, repeats))

    def run() -> None:
        watershed(-maps[1].astype(np.int16), ndi.label(maps[1] > 127)[0], mask=maps[0] > 127)

    return cpu_rate(maps[0].size / 1e6, run)


def gzip_rate(geojson: Path) -> float:
    """Return the megabytes per second of gzip -1 on the text of a GeoJSON file."""
    text = geojson.read_bytes()[: 1 << 24]
    return cpu_rate(len(text) / 1e6, lambda: zlib.compress(text, 1))


def show(name: str, run: Run) -> None:
    """Print one line of a table."""
    rate, per_cell = run.megapixels / run.cpu, 1e6 * run.cpu / max(1, run.cells)
    print(f"{name:12s} {run.megapixels:7.1f} MP {run.cells:8d} cells {run.cpu:7.2f} s CPU {run.wall:7.2f} s "
          f"{rate:6.2f} MP/s CPU {per_cell:7.1f} us/cell", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    work.Clock = CpuClock  # type: ignore[misc]
    sides = {times: side_of(times * args.tiles) for times in (1, 2, 4)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slides = {}
        for times, side in sides.items():
            slides[times] = folder / f"{times}.svs"
            write_pattern_slide(slides[times], side, [(0, 0, side, side)])

        def least(works: dict[int, tuple[int, int]]) -> dict[int, Run]:
            """Return the run of each (slide, nuclei) that took the least CPU."""
            runs = [
                {name: replay(slides[times], sides[times], nuclei, folder) for name, (times, nuclei) in works.items()}
                for _ in range(args.rounds)
            ]
            return {name: min((found[name] for found in runs), key=lambda run: run.cpu) for name in works}

        replay(slides[1], sides[1], DENSITY, folder)  # compiles what is compiled
        area = least({times: (times, DENSITY) for times in slides})
        for times, run in area.items():
            show(f"{times**2}x area", run)
        geojson = gzip_rate(folder / "cells.geojson")
        cells = least({nuclei: (2, nuclei) for nuclei in (2, 4, 8)})
        for nuclei, run in cells.items():
            show(f"{nuclei**2 // 4}x cells", run)
        first, middle, last = (run.cpu / run.megapixels for run in area.values())
        print(f"seconds per megapixel, 4x and 16x the area over 1x: {middle / first:.2f}, {last / first:.2f}")
        few, more, many = ((run.cpu, run.cells) for run in cells.values())
        slopes = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in ((few, more), (more, many))]
        print(f"CPU per further cell: {1e6 * slopes[0]:.0f} us up to 4x, {1e6 * slopes[1]:.0f} us up to 16x the cells")
        rate, decode, water = 1 / last, jpeg_decode(slides[1]), reference_watershed()
        print(f"everything but the network: {rate:.2f} MP per second of CPU; two cores: {2 * rate:.2f} MP/s")
        print(f"  over JPEG decoding alone ({decode:.1f}): {rate / decode:.3f}")
        print(f"  over scikit-image's watershed alone ({water:.2f}): {rate / water:.2f}")
        print(f"gzip -1 of the GeoJSON: {geojson:.0f} MB/s")
        print("ms of CPU per megapixel on slides of 1, 4 and 16 times the area:")
        for stage in area[4].stages:
            each = (1000 * run.stages.get(stage, 0.0) / run.megapixels for run in area.values())
            print(f"  {stage:28s}" + "".join(f"{ms:8.1f}" for ms in each))


if __name__ == "__main__":
    main()
