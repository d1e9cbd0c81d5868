"""Time and memory of the viewer's answers, from the whole slide to single cells.

python -m tests.benchmarks.bench_view [CELLS]     (default: 1000000; made as in bench_formats)
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.bench_formats import ABOUT, MODULE, PITCH, SCALE


def rss_mb() -> int:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(n: int) -> None:
    """Print one JSON line for each zoom level: milliseconds, cells and kilobytes of a tile; then the rest."""
    from wsipipe.formats.parquet import merge_parts
    from wsipipe.view import layer
    from wsipipe.view.index import CellIndex

    with tempfile.TemporaryDirectory() as name:
        folder, side = Path(name), math.ceil(math.sqrt(n) * PITCH * SCALE) + 64
        subprocess.run([*MODULE, "--parts", name, str(n)], check=True)
        merge_parts(sorted(folder.glob("*.arrow")), folder / "cells.parquet", ABOUT | {"size": [side, side]})
        before, start = rss_mb(), time.perf_counter()
        index = CellIndex(folder / "cells.parquet")
        told = {"cells": index.cells, "open_s": round(time.perf_counter() - start, 2), "before_mb": before}
        print(json.dumps(told | {"open_mb": rss_mb()}))
        for power in range(math.ceil(math.log2(side)) - 8, -3, -1):
            scale = 2.0**power
            across = min(3, math.ceil(side / layer.TILE / scale))
            spent, data = [], b""
            for row, column in np.ndindex(across, across):
                start = time.perf_counter()
                data = layer.tile_bytes(index, scale, column, row)
                spent.append(1000 * (time.perf_counter() - start))
            kind, count = struct.unpack("<II", data[:8])
            median, worst = round(float(np.median(spent)), 1), round(max(spent), 1)
            zoom = {"base_px_per_px": scale, "kind": "outlines" if kind == layer.OUTLINES else "dots", "drawn": count}
            print(json.dumps(zoom | {"kB": len(data) // 1000, "median_ms": median, "worst_ms": worst}))
        spots = np.random.default_rng(0).uniform(0, side, (200, 2))
        start = time.perf_counter()
        for x, y in spots:
            index.at(float(x), float(y))
        print(
            json.dumps({"point_ms": round(1000 * (time.perf_counter() - start) / len(spots), 2), "peak_mb": rss_mb()})
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="?", type=int, default=1_000_000)
    measure(parser.parse_args().cells)


if __name__ == "__main__":
    main()
