"""How a patch is compressed: as a lossless WebP picture, half the size of general compression on stained tissue.

The choice is explained in ``docs/decisions/corpus-codec.md``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import imagecodecs
import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.codecs import ZstdCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.registry import register_codec

NAME = "wsipipe.webp"


@dataclass(frozen=True)
class WebPCodec(ArrayBytesCodec):
    """Zarr v3 codec of uint8 chunks (..., H, W, 3): a lossless WebP file of all rows, one chunk below the other.

    Any WebP decoder reads a chunk's bytes. Registered with zarr as ``wsipipe.webp``.
    """

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the codec that an array's metadata describe."""
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Return what an array's metadata say of the codec."""
        return {"name": NAME, "configuration": {}}

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        pixels = np.ascontiguousarray(chunk_array.as_numpy_array()).reshape(-1, *chunk_spec.shape[-2:])
        data = await asyncio.to_thread(_encode, pixels)
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        pixels = await asyncio.to_thread(imagecodecs.webp_decode, chunk_data.to_bytes())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels.reshape(chunk_spec.shape))

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Refuse: how small a picture becomes depends on what it shows."""
        raise NotImplementedError


def _encode(pixels: np.ndarray[Any, Any]) -> bytes:
    return bytes(imagecodecs.webp_encode(pixels, lossless=True, method=0))


def array_options(codec: str) -> dict[str, Any]:
    """Return the arguments of ``zarr.create_array`` that stand for *codec*: webp, zstd or none."""
    if codec == "webp":
        return {"serializer": WebPCodec(), "compressors": None}
    return {"compressors": ZstdCodec(level=1) if codec == "zstd" else None}


register_codec(NAME, WebPCodec)
