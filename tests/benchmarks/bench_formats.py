"""Time and memory of merging parts, writing Parquet and writing GeoJSON.

    python -m tests.benchmarks.bench_formats [CELLS ...]     (default: 200000 1000000)

Cells have 24 vertices each, 5,000 per mm² at 0.5 µm/px, in blocks of 2048 px. Each number of cells has a process of its
own, and its parts another one, so the peak memory is that of the outputs. Beside it: gzip -1 of the same text alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import shapely

MODULE = sys.executable, "-m", "tests.benchmarks.bench_formats"
BLOCK = 2048
PITCH = 28  # grid px between cells: 5,000 per mm² at 0.5 µm/px
SCALE = 2.0
ABOUT = {
    "fingerprint": "f" * 64,
    "size": [200_000, 200_000],
    "bounds": None,
    "mpp": [0.25, 0.25],
    "mpp_source": "vendor property",
    "classes": {"Neoplastic": [255, 0, 0], "Inflammatory": [0, 200, 0]},
}


def polygons_at(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one polygon of 24 vertices about each centre (base px)."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = rng.uniform(13, 19, (len(x), 24))
    ring = np.stack([x[:, None] + radius * np.cos(angle), y[:, None] + radius * np.sin(angle)], axis=-1)
    return shapely.polygons(np.round(ring, 2))


def make_parts(n: int, folder: Path) -> None:
    """Write parts with *n* cells in all."""
    from wsipipe.cells.measure import MEASURES
    from wsipipe.formats import parquet

    side = int(np.ceil(np.sqrt(n))) * PITCH
    per = BLOCK // PITCH
    left = n
    for index, (by, bx) in enumerate(np.ndindex(-(-side // BLOCK), -(-side // BLOCK))):
        rng = np.random.default_rng(index)
        gy, gx = np.divmod(np.arange(per * per), per)
        cx, cy = (bx * BLOCK + gx * PITCH + 10)[:left], (by * BLOCK + gy * PITCH + 10)[:left]
        left -= len(cx)
        found = SimpleNamespace(
            sums=np.stack([np.ones_like(cx), cx, cy], axis=1),
            probability=rng.random(len(cx), np.float32),
            type=rng.integers(-1, 2, len(cx)).astype(np.int16),
            type_probability=rng.random(len(cx), np.float32),
            type_means=rng.random((len(cx), 2), np.float32),
            oversize=np.zeros(len(cx), bool),
        )
        polygons = polygons_at(cx * SCALE, cy * SCALE, rng)
        measures = {name: rng.random(len(cx)) * 100 for name in MEASURES} | {"x": cx * SCALE, "y": cy * SCALE}
        table = parquet.cells_table(
            found, polygons, measures, fingerprint=str(ABOUT["fingerprint"]), classes=list(ABOUT["classes"])
        )
        parquet.write_part(table, folder / f"{index:05d}.arrow")
        if not left:
            break


def gzip_alone(path: Path) -> float:
    """Return the seconds of CPU of gzip -1 of the text in *path*, a piece at a time."""
    seconds = 0.0
    squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
    with gzip.open(path) as file:
        while text := file.read(1 << 22):
            start = time.process_time()
            squeeze.compress(text)
            seconds += time.process_time() - start
    return seconds


def measure(n: int) -> None:
    """Print one JSON line: seconds, megabytes, peak memory."""
    from wsipipe.formats import geojson, parquet

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        subprocess.run([*MODULE, "--parts", name, str(n)], check=True)
        made, made_cpu = time.perf_counter(), time.process_time()
        cells = parquet.merge_parts(sorted(folder.glob("*.arrow")), folder / "cells.parquet", ABOUT)
        merged, merged_cpu = time.perf_counter(), time.process_time()
        geojson.write_geojson(folder / "cells.parquet", folder / "cells.geojson.gz")
        exported, exported_cpu = time.perf_counter(), time.process_time()
        size = {path.name: round(path.stat().st_size / 1e6, 1) for path in folder.glob("cells.*")}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        gzip_cpu = gzip_alone(folder / "cells.geojson.gz")
    print(
        json.dumps(
            {
                "cells": cells,
                "parts_s": round(made - start, 2),
                "merge_s": round(merged - made, 2),
                "merge_cpu_s": round(merged_cpu - made_cpu, 2),
                "geojson_gz_s": round(exported - merged, 2),
                "geojson_gz_cpu_s": round(exported_cpu - merged_cpu, 2),
                "over_gzip_alone": round((exported_cpu - made_cpu) / gzip_cpu, 2),
                "peak_mb": peak,
                "file_mb": size,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", type=int, default=[200_000, 1_000_000])
    parser.add_argument("--parts", metavar="FOLDER", type=Path, help="only write parts with so many cells into it")
    parser.add_argument("--one", action="store_true", help="measure in this process")
    args = parser.parse_args()
    for cells in args.cells:
        if args.parts:
            make_parts(cells, args.parts)
        elif args.one:
            measure(cells)
        else:
            subprocess.run([*MODULE, "--one", str(cells)], check=True)


if __name__ == "__main__":
    main()
