"""How many cores and how much memory this process may use: under cgroups or SLURM, less than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from wsipipe.artifacts.system import memory

NO_LIMIT = 1 << 60
"""cgroup v1 says "no limit" with a huge number; anything above this is one."""


def allowed_cores(root: Path = Path("/")) -> int:
    """Return the number of cores this process may use, at least 1.

    The least of the affinity mask, the cgroup CPU quota (v1 and v2, with all parents), and what SLURM gave.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are; for tests.
    """
    limits: list[float] = [_affinity()]
    limits += [quota / period for quota, period in _cpu_quotas(root)]
    limits += [value for value in (_number(os.environ.get("SLURM_CPUS_PER_TASK", "")),) if value]
    return max(1, math.floor(min(limits) + 1e-6))


def network_threads() -> int:
    """Return the number of CPU threads for the network: all allowed cores, or fewer if OMP_NUM_THREADS says so."""
    asked = _number(os.environ.get("OMP_NUM_THREADS", ""))
    return max(1, min(allowed_cores(), int(asked))) if asked else allowed_cores()


def allowed_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory this process may use: the least of physical memory, cgroup limits and SLURM's."""
    limits: list[float] = [_meminfo(root).get("MemTotal", 0) or memory()[0]]
    limits += [limit for limit, _ in _memory_limits(root)]
    slurm = _number(os.environ.get("SLURM_MEM_PER_NODE", ""))
    limits += [slurm * 2**20] if slurm else []
    return int(min(limits))


def free_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that can still be taken without swapping or meeting a cgroup limit."""
    limits: list[float] = [_meminfo(root).get("MemAvailable", 0) or memory()[1]]
    limits += [limit - used for limit, used in _memory_limits(root)]
    return max(0, int(min(limits)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_quotas(root: Path) -> Iterator[tuple[float, float]]:
    """Yield (quota, period) in microseconds of every cgroup around this process that has a quota."""
    for folder in _cgroups(root, ""):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if (q := _number(quota)) and (p := _number(period)):
            yield q, p
    for folder in _cgroups(root, "cpu"):
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if (q := _number(quota)) and (p := _number(period)):
            yield q, p


def _memory_limits(root: Path) -> Iterator[tuple[float, float]]:
    """Yield (limit, used) in bytes of every cgroup around this process that has a limit; page cache is not use."""
    versions = (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for controller, limit_name, used_name, cache_name in versions:
        for folder in _cgroups(root, controller):
            limit = _number(_text(folder / limit_name))
            if limit and limit < NO_LIMIT:
                used = _number(_text(folder / used_name)) or 0
                yield limit, max(0, used - _field(folder / "memory.stat", cache_name))


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the cgroup folders of this process, innermost first; *controller* "" is the unified hierarchy (v2)."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controller
        parts = Path(path.strip("/")).parts
        for depth in range(len(parts), -1, -1):
            yield mount.joinpath(*parts[:depth])


def _meminfo(root: Path) -> dict[str, int]:
    """Return ``/proc/meminfo`` in bytes; empty where there is none."""
    pairs = (line.split(":") for line in _text(root / "proc/meminfo").splitlines() if line.endswith("kB"))
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def _field(path: Path, name: str) -> float:
    """Return the number that follows *name* in a file of ``name value`` lines, 0 when it is not there."""
    return next((float(line.split()[1]) for line in _text(path).splitlines() if line.split()[0] == name), 0.0)


def _number(text: str) -> float | None:
    """Return a positive number, or None for ``max``, ``-1`` and the like."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value > 0 else None


def _text(path: Path) -> str:
    """Return the content of a small file; empty when it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
