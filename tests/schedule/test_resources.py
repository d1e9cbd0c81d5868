"""Limits of cores and memory, on made-up machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsipipe.schedule import resources
from wsipipe.schedule.resources import allowed_cores, allowed_memory, free_memory

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that lays out a root folder; the machine has 16 cores and 64 GiB, 48 of them available."""
    monkeypatch.setattr(resources, "_affinity", lambda: 16)

    def lay_out(files: dict[str, str]) -> Path:
        meminfo = f"MemTotal: {64 * 2**20} kB\nMemAvailable: {48 * 2**20} kB\nHugePages_Total: 0"
        for name, text in {"proc/meminfo": meminfo, **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
        return tmp_path

    return lay_out


def limits(root: Path) -> tuple[int, float, float]:
    return allowed_cores(root), allowed_memory(root) / GIB, free_memory(root) / GIB


def test_bare_machine(machine) -> None:
    assert limits(machine({})) == (16, 64, 48)


def test_cgroup_v2_takes_the_least_of_all_parents(machine) -> None:
    root = machine(
        {
            "proc/self/cgroup": "0::/job/step",
            "sys/fs/cgroup/job/step/cpu.max": "max 100000",
            "sys/fs/cgroup/job/cpu.max": "250000 100000",
            "sys/fs/cgroup/job/step/memory.max": "max",
            "sys/fs/cgroup/job/memory.max": str(8 * GIB),
            "sys/fs/cgroup/job/memory.current": str(5 * GIB),
            "sys/fs/cgroup/job/memory.stat": f"anon 5\ninactive_file {2 * GIB}",
        }
    )
    assert limits(root) == (2, 8, 5)


def test_cgroup_v1(machine) -> None:
    root = machine(
        {
            "proc/self/cgroup": "4:memory:/box\n2:cpu,cpuacct:/box",
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "400000",
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096),
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": str(4 * GIB),
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": str(1 * GIB),
        }
    )
    assert limits(root) == (4, 4, 3)


def test_less_than_one_core_is_one(machine) -> None:
    root = machine({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"})
    assert allowed_cores(root) == 1


def test_slurm(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert limits(machine({}))[:2] == (3, 2)


def test_this_machine() -> None:
    assert 1 <= allowed_cores() <= (os.cpu_count() or 1)
    assert 0 < free_memory() <= allowed_memory()
