"""Codecs for the corpus: size and CPU time on real patches, in the store's own layout.

    python -m tests.benchmarks.bench_corpus IMAGES... [--patches N]

IMAGES are pictures or folders of them; of each one patch of 512 px is taken, at its own resolution. Rates are of CPU
time (all threads), so that they hold on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs as ic
import numpy as np
import zarr
from PIL import Image
from zarr.abc.codec import ArrayBytesCodec
from zarr.codecs import BloscCodec, TransposeCodec, ZstdCodec
from zarr.codecs.numcodecs import Delta

from wsipipe.corpus.codec import array_options
from wsipipe.corpus.sources import find_sources

SIDE, SHARD = 512, 16
PLANAR = TransposeCodec(order=(0, 3, 1, 2))


@dataclass(frozen=True)
class PictureCodec(ArrayBytesCodec):
    """Any lossless picture format as a Zarr codec, for this measurement alone."""

    pack: Callable[[Any], bytes] = field(compare=False)
    unpack: Callable[[bytes], Any] = field(compare=False)
    is_fixed_size = False

    def to_dict(self) -> dict[str, Any]:
        return {"name": "bench", "configuration": {}}

    async def _encode_single(self, chunk_array: Any, chunk_spec: Any) -> Any:
        data = await asyncio.to_thread(self.pack, chunk_array.as_numpy_array()[0])
        return chunk_spec.prototype.buffer.from_bytes(bytes(data))

    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        pixels = await asyncio.to_thread(self.unpack, chunk_data.to_bytes())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(np.asarray(pixels).reshape(chunk_spec.shape))

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: Any) -> int:
        raise NotImplementedError


def candidates() -> dict[str, dict[str, Any]]:
    """Return the codecs under test, as arguments of ``zarr.create_array``."""
    table: dict[str, dict[str, Any]] = {name: array_options(name) for name in ("none", "zstd", "webp")}
    table["zstd 9"] = {"compressors": ZstdCodec(level=9)}
    for shuffle in ("shuffle", "bitshuffle"):
        table[f"blosc zstd 3 {shuffle}"] = {
            "compressors": BloscCodec(cname="zstd", clevel=3, shuffle=shuffle, typesize=3)
        }
    table["planes, delta, zstd 1"] = {"filters": [PLANAR, Delta(dtype="|u1")], "compressors": ZstdCodec(level=1)}
    pictures: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
        "png 1": (lambda p: ic.png_encode(p, 1), ic.png_decode),
        "qoi": (ic.qoi_encode, ic.qoi_decode),
        "webp, method 1": (lambda p: ic.webp_encode(p, lossless=True, method=1), ic.webp_decode),
        "jpeg-xl, effort 1": (lambda p: ic.jpegxl_encode(p, lossless=True, effort=1), ic.jpegxl_decode),
        "jpeg-xl, effort 3": (lambda p: ic.jpegxl_encode(p, lossless=True, effort=3), ic.jpegxl_decode),
        "jpeg-ls": (ic.jpegls_encode, ic.jpegls_decode),
        "htj2k": (lambda p: ic.htj2k_encode(p, reversible=True), ic.htj2k_decode),
    }
    for name, (encode, decode) in pictures.items():
        table[name] = {"serializer": PictureCodec(encode, decode), "compressors": None}
    return table


def measure(patches: Any, codec: dict[str, Any], folder: Path) -> tuple[float, float, float]:
    """Return stored bytes per raw byte, and patches per second of CPU time for writing and for reading."""
    shape = (SIDE, SIDE, 3)
    array = zarr.create_array(
        folder, shape=patches.shape, chunks=(1, *shape), shards=(SHARD, *shape), dtype="u1", **codec
    )
    start = time.process_time()
    for first in range(0, len(patches), SHARD):
        array[first : first + SHARD] = patches[first : first + SHARD]
    write, times = time.process_time() - start, []
    for _ in range(2):
        start = time.process_time()
        for i in np.random.default_rng(0).permutation(len(patches)):
            assert np.array_equal(array[int(i)], patches[i])
        times.append(time.process_time() - start)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return size / patches.nbytes, len(patches) / write, len(patches) / min(times)


def read_patches(images: list[str], most: int) -> Any:
    """Return up to *most* patches, uint8 (n, 512, 512, 3), from images spread evenly over the list."""
    sources = [s for given in images for s in find_sources([given])]
    found = []
    for source in sources[:: max(1, len(sources) // (2 * most))]:
        with Image.open(source.path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        if min(pixels.shape[:2]) >= SIDE:
            found.append(pixels[:SIDE, :SIDE])
    return np.stack(found[:: max(1, len(found) // most)][:most])


def main() -> None:
    """Print a table."""
    warnings.simplefilter("ignore")  # a filter of numcodecs is outside the Zarr v3 specification, says zarr
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--patches", type=int, default=64)
    given = parser.parse_args()
    patches = read_patches(given.images, given.patches)
    print(f"| codec | size / raw | write patches/s | read patches/s |  {len(patches)} patches\n|---|---|---|---|")
    for name, codec in candidates().items():
        with tempfile.TemporaryDirectory() as folder:
            size, write, read = measure(patches, codec, Path(folder) / "a.zarr")
        print(f"| {name} | {size:.3f} | {write:.0f} | {read:.0f} |", flush=True)


if __name__ == "__main__":
    main()
