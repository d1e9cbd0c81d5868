"""The positive share of a drawn H-DAB slide: from its true outlines, and end to end, in points beside the truth.

    python -m tests.benchmarks.bench_index [--model MODEL] [--nuclei N] [--positive SHARE] [--seed N] [--folder DIR]

Draws a slide with at least N nuclei, of which that share is brown; segments, measures and scores it as the commands do
(`wsipipe segment --stain-vectors hdab`, `measure --add stains`, `score`), and does the last two with the true outlines,
too. Which nuclei were found, brown and blue, says where a difference comes from. With --folder the files stay.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import shapely

from wsipipe.formats.parquet import read_cells
from wsipipe.phantom.demo import draw_demo
from wsipipe.pipelines.score import ScoreJob, run_score
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.measuring import MeasureJob, run_measure
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import MeasureSettings, PhantomSettings, RunSettings, StainSettings

PER_MEGAPIXEL = 155.0
"""Nuclei of a drawn slide with 80 % tissue in a million of its pixels, about."""
HDAB = StainSettings(stain_vectors="hdab")
Truth = tuple[np.ndarray, np.ndarray]
"""Centroids (n, 2) in base pixels, and which nuclei are brown (n,)."""


def drawn(folder: Path, nuclei: int, positive: float, seed: int) -> Truth:
    """Draw a slide with at least so many nuclei, and return what is true of them."""
    pixels = nuclei / PER_MEGAPIXEL * 1e6
    while True:
        side = math.ceil(math.sqrt(pixels * 4 / 3) / 256) * 256
        settings = PhantomSettings(
            width=side, height=math.ceil(side * 0.75 / 256) * 256, seed=seed, tissue=0.8, staining="hdab",
            positive=positive,
        )  # fmt: skip
        draw_demo(folder / "slide.tiff", settings, folder / "truth.geojson")
        features = json.loads((folder / "truth.geojson").read_text())["features"]
        if len(features) >= nuclei:
            break
        pixels *= 1.1 * nuclei / max(1, len(features))
    shapes = shapely.from_geojson([json.dumps(f["geometry"]) for f in features])
    brown = np.array([f["properties"]["classification"]["name"] == "Positive" for f in features])
    return shapely.get_coordinates(shapely.centroid(shapes)), brown


def share_of(folder: Path, cells: Path, name: str) -> float:
    """Measure and score *cells* as the commands do, and return the share of positive ones."""
    measured, scored = folder / f"{name}-measured.parquet", folder / f"{name}-scored.parquet"
    slide = str(folder / "slide.tiff")
    run_measure(MeasureJob(cells, slide, measured, MeasureSettings(add="stains"), stain=HDAB), Progress())
    counts = run_score(ScoreJob((measured,), scored, slide=slide), Progress()).counts
    return counts["Positive"] / max(1, counts["Positive"] + counts["Negative"])


def found(truth: Truth, cells: Path) -> tuple[float, float]:
    """Return the share of brown and of blue nuclei whose centre lies in a cell."""
    tree = shapely.STRtree(read_cells(cells).geometry.to_numpy())
    hit = np.zeros(len(truth[1]), bool)
    hit[tree.query(shapely.points(truth[0]), predicate="within")[0]] = True
    return float(hit[truth[1]].mean()), float(hit[~truth[1]].mean())


def main() -> None:
    """Print the shares, and how far they are from the truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cmd-t")
    parser.add_argument("--nuclei", type=int, default=10_000)
    parser.add_argument("--positive", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        truth = drawn(folder, given.nuclei, given.positive, given.seed)
        start = time.perf_counter()
        cells, run = folder / "cells.parquet", RunSettings(device=given.device)
        run_segment(SegmentJob(str(folder / "slide.tiff"), (cells,), given.model, run=run, stain=HDAB), Progress())
        seconds, true = time.perf_counter() - start, float(truth[1].mean())
        brown, blue = found(truth, cells)
        print(f"{len(truth[1]):,} nuclei drawn, {true:.2%} brown; {len(read_cells(cells)):,} cells in {seconds:.0f} s")
        print(f"found: {brown:.1%} of the brown nuclei, {blue:.1%} of the blue ones")
        print(f"{'':<14}{'positive':>10}{'off, points':>13}")
        for name, path in (("true outlines", folder / "truth.geojson"), ("end to end", cells)):
            share = share_of(folder, path, name.split()[0])
            print(f"{name:<14}{share:>10.2%}{100 * (share - true):>+13.2f}")


if __name__ == "__main__":
    main()
