"""The device that a network runs on: which one, in which arithmetic, and what to do when its memory is used up."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from traceback import clear_frames
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsipipe.errors import ModelError, SettingsError

log = logging.getLogger(__name__)

BATCH = {"cpu": 4, "cuda": 64, "mps": 16}
"""Tiles per forward pass where none is asked for. Fixed per device type: it is part of the recipe."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable that says which GPUs a process may use: numbers, or names such as GPU-... and MIG-..."""
NAMED = "GPU-", "MIG-"
"""How the names of GPUs, and of parts of one, begin."""
USED_UP = "out of memory", "can't allocate memory", "ALLOC_FAILED"
"""What errors say when memory is used up: of CUDA and Metal, of the CPU's allocator, of cuBLAS and cuDNN."""


class SmallerBatch(ModelError):
    """The device ran out of memory; the slide must restart with the smaller batch that this carries."""

    def __init__(self, batch: int) -> None:
        super().__init__(f"out of device memory with {batch} tiles per forward pass; trying {batch // 2}")
        self.batch = batch // 2
        self.failed = batch

    def __reduce__(self) -> tuple[type[SmallerBatch], tuple[int]]:
        return type(self), (self.failed,)


def choose_device(wanted: str) -> torch.device:
    """Return the device that *wanted* names; ``auto`` takes a GPU when there is one that works.

    Raises
    ------
    SettingsError
    """
    if wanted == "auto":
        return _fastest()
    try:
        device = torch.device(wanted)
        if device.type not in BATCH:
            raise RuntimeError(f"no network runs on {device.type} here")
        try_out(device)
    except (RuntimeError, AssertionError) as error:
        reason, expected = str(error).splitlines()[0], "expected auto, cpu, cuda, cuda:N or mps"
        if device_name := next((wanted for name in NAMED if wanted.startswith(name)), ""):
            expected = f"set {VISIBLE}={device_name} and give --device cuda, or give it as --devices"
        raise SettingsError(f"--device {wanted} cannot be used ({reason}); {expected}") from error
    return device


def _fastest() -> torch.device:
    """Return a GPU that works, else the CPU; a GPU that does not is told of."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for kind in (name for name, found in there.items() if found):
        try:
            try_out(torch.device(kind))
        except (RuntimeError, AssertionError) as error:
            log.warning("the %s device does not work (%s); the CPU is used", kind, str(error).splitlines()[0])
        else:
            return torch.device(kind)
    return torch.device("cpu")


def try_out(device: torch.device) -> None:
    """Compute something on *device*, which fails where its driver, or the architecture torch is built for, is wrong.

    Raises
    ------
    RuntimeError, AssertionError
    """
    torch.ones(1, device=device).add(1).item()


def native_bf16(device: torch.device) -> bool:
    """Whether *device* computes in bf16 natively (elsewhere it is emulated, and slower than fp32)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.cpu._is_avx512_bf16_supported()
    return False


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic of *precision* (auto, fp32, bf16) on *device*."""
    if precision == "auto":
        return torch.bfloat16 if native_bf16(device) else torch.float32
    if precision == "bf16" and not native_bf16(device):
        log.warning("bf16 is not native on this %s: it is emulated, and slower than fp32", device.type)
    return torch.bfloat16 if precision == "bf16" else torch.float32


def trains_in_bf16(precision: str, device: torch.device) -> bool:
    """Whether training under *precision* runs in bf16 autocast; ``auto``: on a GPU where it is native."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda" and native_bf16(device))


def can_compile(device: torch.device) -> bool:
    """Whether ``torch.compile`` can make kernels for *device*: a GPU that Triton knows, and a C compiler."""
    if device.type != "cuda" or find_spec("triton") is None or torch.cuda.get_device_capability(device) < (7, 0):
        return False
    return any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang"))


def sent(array: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return *array* on *device*.

    To a GPU it goes from pinned memory without waiting; torch keeps that memory until the copy is done. Metal would go
    on reading memory that is freed, so there, as on a CPU, the copy is made at once.
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def fetched(tensor: Tensor) -> Callable[[], NDArray[Any]]:
    """Begin to bring *tensor* to the CPU; return what waits for it and gives the array.

    On a GPU what is computed next does not wait. The event is one of the stream, and of the device, that *tensor* is
    computed on, which need not be the thread's current ones.
    """
    if tensor.device.type != "cuda":
        array: NDArray[Any] = tensor.cpu().numpy()
        return lambda: array
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    with torch.cuda.device(tensor.device):
        host.copy_(tensor, non_blocking=True)
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(tensor.device))

    def wait() -> NDArray[Any]:
        done.synchronize()
        there: NDArray[Any] = host.numpy()
        return there

    return wait


def out_of_memory(error: RuntimeError) -> bool:
    """Whether *error* says that memory is used up: of a GPU, or the CPU's."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in USED_UP)


@contextmanager
def memory_watched(device: torch.device, batch: int) -> Iterator[None]:
    """Say how to go on when the block, a forward pass of *batch* tiles, runs out of memory.

    What the pass had computed so far is let go of first: the error's traceback would keep it for as long as anybody
    holds the error, and a smaller batch is tried meanwhile.

    Raises
    ------
    SmallerBatch
    ModelError
        When not even one tile fits, or the device fails in another way.
    """
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            if str(error).startswith("CUDA error"):
                raise ModelError(
                    f"{device} failed ({str(error).splitlines()[0]}); the process cannot use it any more: the same "
                    "command goes on, on another device or after the driver is mended (`wsipipe doctor`)"
                ) from error
            raise
        clear_frames(error.__traceback__)
        free_memory(device)
        if batch == 1:
            raise ModelError(f"not enough memory on {device} for a single tile; use --device cpu") from error
        raise SmallerBatch(batch) from error


def free_memory(device: torch.device) -> None:
    """Give back what torch keeps of the memory of *device* for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def gpu_of(name: str) -> str:
    """Return what ``CUDA_VISIBLE_DEVICES`` must be for a process that is to see the GPU *name* alone.

    Parameters
    ----------
    name : str
        ``cuda:1``, the second of those that this process may use, which need not be the machine's second; or
        ``GPU-...``, ``MIG-...``.

    Raises
    ------
    SettingsError
        When this process may not use so many.
    """
    if name.startswith(NAMED):
        return name
    number = int(name.partition(":")[2] or 0)
    stated = os.environ.get(VISIBLE)
    seen = [part.strip() for part in stated.split(",")] if stated is not None else None
    parts = seen is not None and all(part.startswith("MIG-") for part in seen)  # torch sees the first one alone
    count = len(seen or ()) if parts else torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= count:
        limit = f" ({VISIBLE} is {stated!r})" if stated is not None else ""
        raise SettingsError(
            f"--devices {name}: this process can use {count} GPUs{limit}, numbered from 0; `wsipipe doctor` shows them"
        )
    return seen[number] if seen else str(number)
