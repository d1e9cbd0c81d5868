"""A Dask cluster on this machine: one process per device that forwards tiles, others that make cells."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wsipipe.errors import SettingsError
from wsipipe.models.device import NAMED, VISIBLE, gpu_of
from wsipipe.schedule.network import DEVICE
from wsipipe.schedule.resources import allowed_cores
from wsipipe.schedule.task import CELLS, PREDICT

LEAN = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.scheduler.active-memory-manager.start": False,
}
"""Dask's settings on this machine: less watching of itself, as tasks are long and their results small."""


def local_cluster(workers: int, devices: str) -> tuple[Any, int]:
    """Start a cluster; return it, and the CPU threads of each process.

    Parameters
    ----------
    workers : int
        Processes. Without *devices* each does everything; with *devices* these make cells, and 1 means one for each
        core that is left.
    devices : str
        Comma-separated; each gets a process that forwards tiles.
    """
    import dask
    from distributed import Scheduler, SpecCluster

    names = device_list(devices)
    cores = allowed_cores()
    cells = workers if workers > 1 or not names else max(1, cores - len(names))
    threads = max(1, cores // (cells + sum(name == "cpu" for name in names)))
    specs: dict[str, Any] = {f"{PREDICT}-{i}-{name}": _spec({PREDICT: 1}, name) for i, name in enumerate(names)}
    specs |= {f"{CELLS}-{i}": _spec({CELLS: 1} if names else {}, "") for i in range(cells)}
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "dashboard": True, "dashboard_address": "127.0.0.1:0"},
    }
    with _no_warning_of_leaks(), dask.config.set(LEAN):
        return SpecCluster(workers=specs, scheduler=scheduler, silence_logs=50, name="wsipipe"), threads


@contextmanager
def _no_warning_of_leaks() -> Iterator[None]:
    """Keep Python's resource tracker, a process begun in the block, silent when an interrupted run leaves at once."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _spec(resources: dict[str, int], device: str) -> dict[str, Any]:
    """Return how a worker process is started: no limit of memory of its own, as the run was checked to fit."""
    from distributed import Nanny

    options = {
        "host": "127.0.0.1",
        "nthreads": 1,
        "memory_limit": 0,
        "resources": resources,
        "dashboard_address": None,
        "silence_logs": 50,
        "preload": [__name__],
        "env": environment(device) if device else {},
    }
    return {"cls": Nanny, "options": options}


def environment(device: str) -> dict[str, str]:
    """Return what a process that forwards tiles on *device* has in its environment: of the GPUs it sees its own alone.

    So nothing that a library does on "the" GPU happens on another one, and a part of a GPU (MIG), of which a process
    can see but one, is a device like any other.

    Raises
    ------
    SettingsError
        When there is no such GPU.
    """
    return {DEVICE: "cuda", VISIBLE: gpu_of(device)} if kind_of(device) == "cuda" else {DEVICE: device}


def dask_setup(worker: Any) -> None:
    """Let Ctrl-C, which a terminal sends to all processes, be the main process's affair; called by Dask in workers.

    They end when the main process does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def device_list(devices: str) -> list[str]:
    """Return the devices of a comma-separated list.

    Raises
    ------
    SettingsError
        When they are not all of one kind: their numbers would differ.
    """
    names = [name.strip() for name in devices.split(",") if name.strip()]
    kinds = {kind_of(name) for name in names}
    numbers = {name.partition(":")[2] or "0" for name in names if not name.startswith(NAMED)}
    if len(kinds) > 1 or not kinds <= {"cpu", "cuda", "mps"} or not all(map(str.isdecimal, numbers)):
        raise SettingsError(
            f"--devices {devices}: expected devices of one kind, such as cuda:0,cuda:1 or cpu,cpu (names of GPUs and "
            "of parts of them, GPU-... and MIG-..., will do)"
        )
    return names


def kind_of(device: str) -> str:
    """Return what kind a device is of: cpu, cuda, mps."""
    return "cuda" if device.startswith(NAMED) else device.partition(":")[0]
