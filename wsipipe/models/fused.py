"""What lies between a ConvNeXt block's matrix products, on a CPU: one pass over memory where torch takes three to five.

Full-size activations are far larger than a core's cache, so each pass costs more than its arithmetic. Every function
works in place on (B, H, W, C) in fp32 or bf16, in fp32 inside. Sums are added up in strips of a fixed length, so that
the bytes do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor

STRIP = 1024
"""Pixels whose squares are added up in fp32, before the strips of a tile are in double precision."""
LARGEST = np.finfo(np.float32).max
SERVED = (torch.float32, torch.bfloat16)
_QUICK = {"contract", "arcp", "reassoc", "nsz"}  # NaN stays NaN
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": _QUICK}

Memory = NDArray[Any]
"""Pixels (n, C): float32, or bf16 as the upper halves of float32, uint16."""


def serves(x: Tensor) -> bool:
    """Whether the functions here can and may work on *x*: compilers and tracers must see operations of torch."""
    watched = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    learning = x.requires_grad and torch.is_grad_enabled()
    return x.device.type == "cpu" and x.dtype in SERVED and not (watched or learning)


def layer_norm(x: Tensor) -> Tensor:
    """Bring each pixel of *x* (B, H, W, C) to mean 0 and variance 1 over channels (eps 1e-6), in place; return it."""
    x = x.contiguous()
    pixels = _memory(x)
    _in_threads(len(pixels), lambda start, stop: _normalise(pixels[start:stop]))
    return x


def gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Replace *x* (B, H, W, C) by the GELU of x + *bias* (C,), in place; return each channel's norm over the tile.

    Returns
    -------
    Tensor (B, 1, C)
        fp32.
    """
    tiles, channels = x.shape[0], x.shape[-1]
    pixels, added = _memory(x), bias.float().numpy()
    side = len(pixels) // tiles
    squares = np.zeros((tiles * -(-side // STRIP), channels), np.float32)
    _in_threads(len(squares), lambda start, stop: _gelu(pixels, side, start, stop, added, squares))
    norm = np.sqrt(squares.reshape(tiles, -1, channels).sum(1, dtype=np.float64)).astype(np.float32)
    return torch.from_numpy(norm)[:, None]


def add(y: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """Add *x* (B, H, W, C) and *bias* (C,) to *y* (B, H, W, C), in place; return it."""
    pixels, others, added = _memory(y), _memory(x.contiguous()), bias.float().numpy()
    _in_threads(len(pixels), lambda start, stop: _add(pixels[start:stop], others[start:stop], added))
    return y


def _memory(x: Tensor) -> Memory:
    flat = x.detach().view(-1, x.shape[-1])
    found: Memory = (flat.view(torch.uint16) if x.dtype is torch.bfloat16 else flat).numpy()
    return found


def _in_threads(length: int, work: Callable[[int, int], None]) -> None:
    """Call *work* with the start and stop of parts of ``range(length)``, in as many threads as torch uses."""
    threads = torch.get_num_threads()
    cuts = [k * length // threads for k in range(threads + 1)]
    others = [_pool(threads).submit(work, *part) for part in zip(cuts[1:], cuts[2:], strict=False)]
    work(cuts[0], cuts[1])
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _wide(value: Any) -> Any:
    """Return a number in memory as fp32."""


def _narrow(value: Any, like: Any) -> Any:
    """Return an fp32 as a number in memory of the kind of *like*, rounded half to even."""


@overload(_wide, inline="always", strict=False)
def _wide_of(value: Any) -> Any:
    if isinstance(value, types.Integer):
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@overload(_narrow, inline="always", strict=False)
def _narrow_of(value: Any, like: Any) -> Any:
    def rounded(value: Any, like: Any) -> Any:
        bits = np.float32(value).view(np.uint32)
        odd = np.uint32(bits >> np.uint32(16)) & np.uint32(1)
        return np.uint16(np.uint32(bits + np.uint32(odd + np.uint32(0x7FFF))) >> np.uint32(16))

    return rounded if isinstance(like, types.Integer) else lambda value, like: np.float32(value)


@njit(**_JIT)
def _normalise(pixels: Memory) -> None:
    count, channels = pixels.shape
    share = np.float32(1.0) / np.float32(channels)
    for i in range(count):
        total = np.float32(0.0)
        for k in range(channels):
            total += _wide(pixels[i, k])
        mean = total * share
        total = np.float32(0.0)
        for k in range(channels):
            total += (_wide(pixels[i, k]) - mean) ** 2
        scale = np.float32(1.0) / np.sqrt(total * share + np.float32(1e-6))
        if not total <= LARGEST:  # a scale of 0 would make sound pixels of what has overflown
            scale = np.float32(np.nan)
        for k in range(channels):
            pixels[i, k] = _narrow((_wide(pixels[i, k]) - mean) * scale, pixels[i, k])


@njit(**_JIT)
def _gelu(pixels: Memory, side: int, start: int, stop: int, bias: Memory, squares: Memory) -> None:
    """Work on the strips *start* to *stop*; a tile has *side* pixels, and its last strip may be shorter."""
    channels = pixels.shape[1]
    strips = (side + STRIP - 1) // STRIP
    for strip in range(start, stop):
        tile, within = strip // strips, (strip % strips) * STRIP
        total = squares[strip]
        for i in range(tile * side + within, tile * side + min(within + STRIP, side)):
            for k in range(channels):
                value = _gelu_of(_wide(pixels[i, k]) + bias[k])
                total[k] += value * value
                pixels[i, k] = _narrow(value, pixels[i, k])


@njit(inline="always", fastmath=_QUICK, error_model="numpy")
def _gelu_of(x: Any) -> Any:
    """Return x (1 + erf(x / sqrt(2))) / 2, with erf as Eigen's ratio of polynomials: right to 1.5e-6 for |x| < 8."""
    half = np.float32(0.5) * x
    z = min(max(x * np.float32(0.70710678), np.float32(-3.8325066)), np.float32(3.8325066))
    t = z * z
    p = np.float32(-2.72614225801306e-10) * t + np.float32(2.77068142495902e-08)
    p = p * t + np.float32(-2.10102402082508e-06)
    p = p * t + np.float32(-5.69250639462346e-05)
    p = p * t + np.float32(-7.34990630326855e-04)
    p = p * t + np.float32(-2.95459980854025e-03)
    p = p * t + np.float32(-1.60960333262415e-02)
    q = np.float32(-1.45660718464996e-05) * t + np.float32(-2.13374055278905e-04)
    q = q * t + np.float32(-1.68282697438203e-03)
    q = q * t + np.float32(-7.37332916720468e-03)
    q = q * t + np.float32(-1.42647390514189e-02)
    return half + half * (z * p / q)


@njit(**_JIT)
def _add(pixels: Memory, others: Memory, bias: Memory) -> None:
    count, channels = pixels.shape
    for i in range(count):
        for k in range(channels):
            pixels[i, k] = _narrow(_wide(pixels[i, k]) + _wide(others[i, k]) + bias[k], pixels[i, k])
