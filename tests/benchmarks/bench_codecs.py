"""Codecs for the tile store: size and CPU time on real pixels.

    python -m tests.benchmarks.bench_codecs [SLIDE [UM_PER_PX]]      (default: a phantom)

Rates are megapixels per second of CPU time (all threads), so that they hold on a busy machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, TransposeCodec, ZstdCodec
from zarr.codecs.numcodecs import Delta

from wsipipe.phantom.slide import write_phantom
from wsipipe.raster import CHUNK, open_slide_raster
from wsipipe.settings import PhantomSettings, SlideSettings

PLANAR = TransposeCodec(order=(2, 0, 1))


def candidates() -> dict[str, dict[str, Any]]:
    """Return the codecs under test, as arguments of ``zarr.create_array``."""
    table: dict[str, dict[str, Any]] = {"none": {"compressors": None}}
    for level in (1, 3, 9):
        table[f"zstd {level}"] = {"compressors": ZstdCodec(level=level)}
    for name, level in (("zstd", 1), ("zstd", 3), ("lz4", 5)):
        for shuffle in ("noshuffle", "shuffle", "bitshuffle"):
            codec = BloscCodec(cname=name, clevel=level, shuffle=shuffle, typesize=3)
            table[f"blosc {name} {level} {shuffle}"] = {"compressors": codec}
    table["planes, zstd 1"] = {"filters": [PLANAR], "compressors": ZstdCodec(level=1)}
    delta = [PLANAR, Delta(dtype="|u1")]
    table["planes, delta, zstd 1"] = {"filters": delta, "compressors": ZstdCodec(level=1)}
    return table


def measure(pixels: np.ndarray, codec: dict[str, Any], folder: Path, repeat: int = 3) -> tuple[float, float, float]:
    """Return stored bytes per raw byte, and MP/s of CPU time for encoding and decoding."""
    padded = tuple(-(-n // CHUNK) * CHUNK for n in pixels.shape[:2])
    shape = (*padded, 3)
    array = zarr.create_array(folder, shape=shape, chunks=(CHUNK, CHUNK, 3), shards=shape, dtype="u1", **codec)
    megapixels = shape[0] * shape[1] / 1e6
    whole = np.pad(pixels, [(0, padded[0] - pixels.shape[0]), (0, padded[1] - pixels.shape[1]), (0, 0)], mode="edge")
    start = time.process_time()
    array[:] = whole
    encode = time.process_time() - start
    times = []
    for _ in range(repeat):
        start = time.process_time()
        for top in range(0, shape[0], CHUNK):
            for left in range(0, shape[1], CHUNK):
                array[top : top + CHUNK, left : left + CHUNK]
        times.append(time.process_time() - start)
    assert np.array_equal(np.asarray(array[:]), whole)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return size / whole.nbytes, megapixels / encode, megapixels / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", nargs="?")
    parser.add_argument("mpp", nargs="?", type=float)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # a filter of numcodecs is outside the Zarr v3 specification, says zarr
    zarr.config.set({"threading.max_workers": 1})
    with tempfile.TemporaryDirectory() as folder:
        slide = args.slide or f"{folder}/phantom.tiff"
        if not args.slide:
            write_phantom(slide, PhantomSettings(width=1536, height=1536, mpp=0.5, tissue=0.9))
        raster = open_slide_raster(slide, SlideSettings(), args.mpp)
        pixels = raster.read((0, 0, *raster.grid.size))
    print(f"| codec | size / raw | encode MP/s | decode MP/s |  {raster.grid.size} px\n|---|---|---|---|")
    for name, codec in candidates().items():
        with tempfile.TemporaryDirectory() as folder:
            size, encode, decode = measure(pixels, codec, Path(folder) / "a.zarr")
        print(f"| {name} | {size:.3f} | {encode:.0f} | {decode:.0f} |", flush=True)


if __name__ == "__main__":
    main()
