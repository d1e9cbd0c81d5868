"""A whole run on a mosaic of annotated images, as a pyramidal slide that is all tissue.

    python -m tests.benchmarks.bench_mosaic IMAGES [--mpp 0.25] [--slide mosaic.svs] [--runs 1] [-- OPTION ...]

IMAGES is a folder of pictures, such as kumar-train16/images: sixteen of 1000 px make a slide of 4000 px. Each run is a
process of its own (`wsipipe segment`, with the OPTIONs, such as --precision fp32), start-up included. Printed: seconds
of CPU and of the clock for each megapixel of the slide. With --slide it is kept.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsipipe.artifacts import atomic_write
from wsipipe.phantom.slide import BRIGHT, aperio_description
from wsipipe.settings import PhantomSettings
from wsipipe.slide.tiff_pyramid import Codec, PyramidWriter, level_sizes
from wsipipe.units import Box

SUFFIXES = (".png", ".tif", ".tiff", ".jpg")


def mosaic(folder: Path) -> NDArray[np.uint8]:
    """Return the pictures of *folder* side by side, as near to a square as they go; as many as fill it."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    height, width = (min(picture.shape[k] for picture in pictures) for k in (0, 1))
    columns = math.isqrt(len(pictures))
    rows = len(pictures) // columns
    cut = [picture[:height, :width] for picture in pictures[: rows * columns]]
    return np.concatenate([np.concatenate(cut[r * columns : (r + 1) * columns], 1) for r in range(rows)])


def write_slide(path: Path, picture: NDArray[np.uint8], mpp: float) -> None:
    """Write *picture* as a pyramidal slide in Aperio's manner."""
    height, width = picture.shape[:2]

    def tile(box: Box) -> NDArray[np.uint8]:
        x0, y0, x1, y1 = box
        return np.ascontiguousarray(picture[y0:y1, x0:x1])

    about = PhantomSettings(width=width, height=height, mpp=mpp)
    with atomic_write(path) as file:
        writer = PyramidWriter(file, level_sizes((width, height), 4), 4, Codec(95), BRIGHT)
        writer.draw(tile)
        writer.finish(aperio_description(about), None, subfile=0, overview=np.full((64, 64, 3), 245, np.uint8))


def run(slide: Path, options: list[str]) -> tuple[float, float]:
    """Return the seconds of CPU and of the clock that segmenting *slide* takes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "wsipipe", "segment", str(slide), "-o", f"{folder}/cells.parquet", *options]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of pictures")
    parser.add_argument("--mpp", type=float, default=0.25, help="their resolution in µm/px")
    parser.add_argument("--slide", type=Path, help="where the slide is kept")
    parser.add_argument("--runs", type=int, default=1, help="how often it is segmented")
    parser.add_argument("options", nargs="*", help="of wsipipe segment, after --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slide = args.slide or Path(folder) / "mosaic.svs"
        picture = mosaic(args.images)
        write_slide(slide, picture, args.mpp)
        megapixels = picture.shape[0] * picture.shape[1] / 1e6
        print(f"{slide}: {picture.shape[1]} x {picture.shape[0]} px, {megapixels:.1f} megapixels", flush=True)
        for _ in range(args.runs):
            cpu, clock = run(slide, args.options)
            print(f"{cpu:.1f} s of CPU ({cpu / megapixels:.2f} a megapixel), {clock:.1f} s", flush=True)


if __name__ == "__main__":
    main()
