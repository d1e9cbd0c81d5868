"""Pixel rate of everything but the network: maps replayed through the real pipeline, at 5,000 nuclei/mm2.

    python tests/benchmarks/bench_replay.py [--side 8192]

Decode, blend, cells, polygons, measurements, Parquet, GeoJSON on two cores; beside it, in the same process and on one
core each: JPEG decode of the same tiles, and scikit-image's watershed of the same maps.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import tifffile
from scipy import ndimage as ndi
from skimage.segmentation import watershed

from tests.benchmarks.replay import ReplayWorker, true_maps
from wsipipe.pipelines.prepare import prepare
from wsipipe.pipelines.segment import SegmentJob, open_work, publish
from wsipipe.schedule import pool
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.task import Board
from wsipipe.settings import RunSettings, TissueSettings
from wsipipe.slide.phantom import PhantomSettings, PhantomTruth, write_phantom

CORES = 2


def replay(slide: Path, truth: PhantomTruth, out: Path, block: int) -> tuple[float, int, dict[str, float]]:
    """Return seconds, cells and seconds per stage of a run with replayed maps."""
    settings = RunSettings(device="cpu", block=block)
    job = SegmentJob(str(slide), (out, out.with_suffix(".geojson")), tissue=TissueSettings(tissue="none"), run=settings)
    prepared = prepare(job, Progress())
    open_work(job.work, prepared)
    worker = ReplayWorker(job.work, truth)
    worker.remember()
    receipts: list = []
    start = time.perf_counter()
    pool.run(worker, Board(prepared.plan), receipts.append, CORES)
    result = publish(job, prepared, receipts, Progress(), time.monotonic())
    return time.perf_counter() - start, result.cells, result.seconds


def jpeg_decode(slide: Path) -> float:
    """Return the megapixels per second of decoding the slide's own JPEG tiles with OpenCV."""
    with tifffile.TiffFile(slide) as tiff:
        page = tiff.pages[0]
        segments = [tiff.filehandle.read_segments([o], [n]) for o, n in zip(page.dataoffsets, page.databytecounts)]
        blobs = [next(s)[0] for s in segments]
    start = time.perf_counter()
    pixels = sum(cv2.imdecode(np.frombuffer(b, np.uint8), cv2.IMREAD_COLOR).size // 3 for b in blobs)
    return pixels / (time.perf_counter() - start) / 1e6


def reference_watershed(truth: PhantomTruth, side: int) -> float:
    """Return the megapixels per second of scikit-image's watershed on the true maps of a square."""
    labels = truth.instance_map((0, 0, side, side))
    tiles = [true_maps(labels[y : y + 256, x : x + 256]) for y in range(0, side, 256) for x in range(0, side, 256)]
    n = side // 256
    maps = np.stack(tiles).reshape(n, n, 2, 256, 256).transpose(2, 0, 3, 1, 4).reshape(2, side, side)
    start = time.perf_counter()
    markers = ndi.label(maps[1] > 127)[0]
    watershed(-maps[1].astype(np.int16), markers, mask=maps[0] > 127)
    return side * side / (time.perf_counter() - start) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8192)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "phantom.tiff"
        settings = PhantomSettings(width=args.side, height=args.side, mpp=0.5, tissue=1.0, nuclei_per_mm2=4800)
        truth = write_phantom(slide, settings)
        small = Path(folder) / "warm.tiff"
        replay(
            small,
            write_phantom(small, PhantomSettings(width=600, height=600, mpp=0.5)),
            Path(folder) / "w.parquet",
            512,
        )
        seconds, cells, stages = replay(slide, truth, Path(folder) / "cells.parquet", RunSettings().block)
        megapixels = args.side**2 / 1e6
        print(f"{megapixels:.1f} megapixels, {cells} cells ({cells / (megapixels / 4):.0f}/mm2), {seconds:.2f} s")
        print(", ".join(f"{k} {v:.2f}" for k, v in stages.items()))
        decode, water = jpeg_decode(slide), reference_watershed(truth, 1024)
        rate = megapixels / seconds
        print(f"everything but the network: {rate:.2f} megapixels/s on {CORES} cores")
        print(f"JPEG decode alone, one core: {decode:.1f} megapixels/s (ratio {rate / decode:.3f})")
        print(f"scikit-image watershed alone, one core: {water:.2f} megapixels/s (ratio {rate / water:.2f})")


if __name__ == "__main__":
    main()
