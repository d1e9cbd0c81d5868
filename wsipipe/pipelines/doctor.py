"""What this machine offers wsipipe: libraries, slide readers, devices, memory, models, and a command to begin with."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from wsipipe import __version__
from wsipipe.errors import ModelError, WsipipeError, install_line
from wsipipe.formats import text
from wsipipe.models.checkpoint import load
from wsipipe.models.device import VISIBLE, native_bf16, try_out
from wsipipe.models.zoo import shipped
from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.pipelines.parts import parts
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores, allowed_memory, free_memory
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import CellSettings, RunSettings, SlideSettings
from wsipipe.slide import BACKENDS, backend_versions, open_slide
from wsipipe.slide.opening import load_reader

LIBRARIES = (
    "torch", "numpy", "scipy", "numba", "opencv-python-headless", "shapely",
    "openslide-python", "openslide-bin", "tiffslide", "tifffile", "imagecodecs", "cucim-cu12", "wsidicom",
    "zarr", "numcodecs", "dask", "distributed", "pandas", "geopandas", "pyarrow", "h5py", "timm", "spatialdata",
)  # fmt: skip
LITTLE_MEMORY, LITTLE_DISK = 4 * 2**30, 10 * 2**30
PROBE = 384
DRIVER = Path("/proc/driver/nvidia/gpus")
"""Where the NVIDIA driver lists its GPUs, one folder each."""


@dataclass(frozen=True)
class Check:
    """One thing that was tried: ``ok``, ``missing`` (optional, not installed) or ``broken``."""

    name: str
    state: str
    detail: str


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


@dataclass(frozen=True)
class Report:
    """Everything `wsipipe doctor` found. Sizes are in bytes; ``problems`` is empty on a machine that is fine."""

    wsipipe: str
    python: str
    platform: str
    libraries: dict[str, str | None]
    readers: tuple[Check, ...]
    run: Check
    cores: int
    devices: tuple[Device, ...]
    memory: int
    memory_free: int
    disk: str
    disk_free: int
    models: tuple[Check, ...]
    parts: tuple[Check, ...]
    problems: tuple[str, ...]
    suggestion: str


def examine(folder: Path) -> Report:
    """Return what there is on this machine; *folder* is where results would be written."""
    readers, devices, models = tuple(_readers()), tuple(_devices()), tuple(_models())
    run = _run()
    disk_free = shutil.disk_usage(folder).free
    problems = tuple(_problems((*readers, run), devices, models, free_memory(), disk_free, str(folder)))
    return Report(
        wsipipe=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        libraries={name: _version(name) for name in LIBRARIES},
        readers=readers,
        run=run,
        cores=allowed_cores(),
        devices=devices,
        memory=allowed_memory(),
        memory_free=free_memory(),
        disk=str(folder),
        disk_free=disk_free,
        models=models,
        parts=tuple(Check(name, "ok" if there else "missing", detail) for name, there, detail in parts()),
        problems=problems,
        suggestion=suggest(devices, problems),
    )


def suggest(devices: tuple[Device, ...], problems: tuple[str, ...]) -> str:
    """Return the command to begin with on a machine that has *devices*."""
    if problems:
        return "wsipipe segment slide.svs -o cells.geojson --dry-run"
    best = [device.name for device in devices if device.works][-1:] or ["cpu"]
    return f"wsipipe segment slide.svs -o cells.geojson --device {best[0].split(':')[0]}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _readers() -> Iterator[Check]:
    """Yield one check per reader: each opens a small slide made on the spot and reads its pixels."""
    with tempfile.TemporaryDirectory(prefix="wsipipe-doctor-") as folder:
        slide = Path(folder) / "phantom.tiff"
        write_phantom(slide, PhantomSettings(width=512, height=512, seed=1, mpp=0.5))
        for name, version in backend_versions().items():
            yield _reader(name, version, slide)


def _reader(name: str, version: str | None, slide: Path) -> Check:
    if version is None:
        install = install_line(BACKENDS[name].extra)
        return Check(name, "missing", f"make cucim-cpu, or with CUDA {install}" if name == "cucim" else install)
    try:
        if name == "dicom":  # it opens no TIFF: loading must do
            load_reader(name)
        else:
            with open_slide(slide, SlideSettings(backend=name)) as opened:
                opened.read_region(0, 128, 128, 256, 256)
    except WsipipeError as error:
        return Check(name, "broken", str(error).replace(str(slide), "a small TIFF"))
    return Check(name, "ok", f"{BACKENDS[name].packages[0]} {version}")


def _run() -> Check:
    """Return whether a small drawn slide can be segmented on the CPU.

    It compiles what numba compiles, and keeps that: the first slide need not wait for it.
    """
    if not shipped():
        return Check("segment", "missing", "no model is shipped with this copy")
    with tempfile.TemporaryDirectory(prefix="wsipipe-doctor-") as folder:
        slide, outputs = Path(folder) / "phantom.svs", [Path(folder) / name for name in ("a.parquet", "a.geojson.gz")]
        write_phantom(slide, PhantomSettings(width=1024, height=768, seed=1, tissue=0.9))
        job = SegmentJob(
            str(slide), tuple(outputs), shipped()[0], cells=CellSettings(expand_um=2), run=RunSettings(device="cpu")
        )
        try:
            found = run_segment(job, Progress())
        except WsipipeError as error:
            return Check("segment", "broken", str(error).replace(folder, "a small slide"))
    kept = text._polygons.stats.cache_path
    return Check("segment", "ok", f"{found.cells} nuclei of a drawn slide; compiled code is kept in {kept}")


def _devices() -> Iterator[Device]:
    """Yield the CPU, then what is faster."""
    yield _cpu()
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield _gpu(torch.device("cuda", i))
    if torch.backends.mps.is_available():
        memory, bf16 = int(torch.mps.recommended_max_memory()), native_bf16(torch.device("mps"))
        yield Device("mps", "Apple GPU", memory, memory - torch.mps.driver_allocated_memory(), bf16, "Metal")


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


def _hidden_gpus() -> str:
    """Return why the NVIDIA GPUs of this machine are not used, "" where there are none or they are."""
    found = len(list(DRIVER.glob("*"))) if DRIVER.is_dir() else 0
    if not found or torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return f"this machine has {found} NVIDIA GPUs, but its torch is built for CPUs; install a CUDA build of torch"
    if (visible := os.environ.get(VISIBLE)) is not None:
        return f"this machine has {found} NVIDIA GPUs, but {VISIBLE} is {visible!r}, which shows none of them"
    return f"this machine has {found} NVIDIA GPUs, but CUDA {torch.version.cuda} cannot use them; update the driver"


def _cpu() -> Device:
    fp32, bf16, extensions = _gflops(torch.float32), _gflops(torch.bfloat16), _extensions()
    sets = ", ".join([torch.backends.cpu.get_cpu_capability(), *(extensions or ["no native bf16"])])
    detail = f"{sets}; {torch.get_num_threads()} threads: {fp32:.0f} GFLOP/s in fp32, {bf16:.0f} in bf16"
    return Device("cpu", _cpu_name(), allowed_memory(), free_memory(), bool(extensions), detail)


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


def _models() -> Iterator[Check]:
    """Yield the models that are shipped in the package."""
    folder = importlib.resources.files("wsipipe.models") / "weights"
    with importlib.resources.as_file(folder) as weights:
        for path in sorted(weights.glob("*.safetensors")):
            try:
                _, card = load(path)
            except ModelError as error:
                yield Check(path.stem, "broken", str(error))
            else:
                size = path.stat().st_size / 1e6
                yield Check(path.stem, "ok", f"{card.kind}, {card.mpp:g} µm/px, {size:.1f} MB, licence {card.licence}")


def _problems(
    readers: tuple[Check, ...],
    devices: tuple[Device, ...],
    models: tuple[Check, ...],
    memory: int,
    disk: int,
    folder: str,
) -> Iterator[str]:
    for check in (*readers, *models):
        if check.state == "broken":
            yield f"{check.name} does not work: {check.detail}"
    for device in devices:
        if not device.works:
            yield f"{device.name} does not work ({device.detail}); update its driver, or install a torch built for it"
    if hidden := _hidden_gpus():
        yield hidden
    if not any(check.state == "ok" for check in models):
        yield "no model is shipped with this copy; give one with --model FILE.safetensors"
    if memory < LITTLE_MEMORY:
        yield f"only {memory / 2**30:.1f} GiB of memory are free; use --block 1024 --workers 1"
    if disk < LITTLE_DISK:
        yield f"only {disk / 2**30:.1f} GiB of disk are free in {folder}"
