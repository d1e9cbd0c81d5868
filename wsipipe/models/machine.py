"""What of this machine a network can run on: its CPU and GPUs, how large and how fast they are."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from wsipipe.models.device import VISIBLE, native_bf16, try_out

PROBE = 384
DRIVER = Path("/proc/driver/nvidia/gpus")
"""Where the NVIDIA driver lists its GPUs, one folder each."""


@dataclass(frozen=True)
class Device:
    """Something the network can run on, with its name as ``--device`` takes it; memory in bytes."""

    name: str
    model: str
    memory: int
    free: int
    bf16: bool
    detail: str
    works: bool = True


def devices(memory: int, free: int) -> Iterator[Device]:
    """Yield the CPU, which may use *memory* bytes of which some are *free*, then what is faster."""
    yield _cpu(memory, free)
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield _gpu(torch.device("cuda", i))
    if torch.backends.mps.is_available():
        total, bf16 = int(torch.mps.recommended_max_memory()), native_bf16(torch.device("mps"))
        yield Device("mps", "Apple GPU", total, total - torch.mps.driver_allocated_memory(), bf16, "Metal")


def _gpu(device: torch.device) -> Device:
    """Return what there is to know of a GPU; one that cannot be used says why."""
    name = str(device)
    try:
        known = torch.cuda.get_device_properties(device)
        try_out(device)
        free, total = torch.cuda.mem_get_info(device)
    except (RuntimeError, AssertionError) as error:
        return Device(name, "does not work", 0, 0, False, str(error).splitlines()[0], works=False)
    detail = f"compute capability {known.major}.{known.minor}, CUDA {torch.version.cuda}"
    return Device(name, known.name, total, free, native_bf16(device), detail)


def hidden_gpus() -> str:
    """Return why the NVIDIA GPUs of this machine are not used, "" where there are none or they are."""
    found = len(list(DRIVER.glob("*"))) if DRIVER.is_dir() else 0
    if not found or torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return f"this machine has {found} NVIDIA GPUs, but its torch is built for CPUs; install a CUDA build of torch"
    if (visible := os.environ.get(VISIBLE)) is not None:
        return f"this machine has {found} NVIDIA GPUs, but {VISIBLE} is {visible!r}, which shows none of them"
    return f"this machine has {found} NVIDIA GPUs, but CUDA {torch.version.cuda} cannot use them; update the driver"


def _cpu(memory: int, free: int) -> Device:
    fp32, bf16, extensions = _gflops(torch.float32), _gflops(torch.bfloat16), _extensions()
    sets = ", ".join([torch.backends.cpu.get_cpu_capability(), *(extensions or ["no native bf16"])])
    detail = f"{sets}; {torch.get_num_threads()} threads: {fp32:.0f} GFLOP/s in fp32, {bf16:.0f} in bf16"
    return Device("cpu", _cpu_name(), memory, free, bool(extensions), detail)


def _extensions() -> list[str]:
    """Return the bf16 instruction sets of this CPU."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    names = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16", "sve_bf16": "SVE-BF16"}
    return [word for key, word in names.items() if known.get(key)]


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _gflops(dtype: torch.dtype) -> float:
    """Return the speed of a small matrix product, in 10⁹ operations per second; the best of many tries."""
    a = torch.ones(PROBE, PROBE).to(dtype)
    best, end = float("inf"), time.perf_counter() + 0.2
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - start)
    return 2 * PROBE**3 / best / 1e9
