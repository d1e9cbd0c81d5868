"""The story of `wsipipe doctor`: what this machine offers, from libraries to models, and a command to begin with."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsipipe._version import __version__
from wsipipe.errors import ModelError, WsipipeError, install_line
from wsipipe.formats import text
from wsipipe.models.checkpoint import load
from wsipipe.models.machine import Device, devices, hidden_gpus
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


@dataclass(frozen=True)
class Check:
    """One thing that was tried: ``ok``, ``missing`` (optional, not installed) or ``broken``."""

    name: str
    state: str
    detail: str


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
    readers, found, models = tuple(_readers()), tuple(devices(allowed_memory(), free_memory())), tuple(_models())
    run = _run()
    disk_free = shutil.disk_usage(folder).free
    problems = tuple(_problems((*readers, run), found, models, free_memory(), disk_free, str(folder)))
    return Report(
        wsipipe=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        libraries={name: _version(name) for name in LIBRARIES},
        readers=readers,
        run=run,
        cores=allowed_cores(),
        devices=found,
        memory=allowed_memory(),
        memory_free=free_memory(),
        disk=str(folder),
        disk_free=disk_free,
        models=models,
        parts=tuple(Check(name, "ok" if there else "missing", detail) for name, there, detail in parts()),
        problems=problems,
        suggestion=suggest(found, problems),
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
    if hidden := hidden_gpus():
        yield hidden
    if not any(check.state == "ok" for check in models):
        yield "no model is shipped with this copy; give one with --model FILE.safetensors"
    if memory < LITTLE_MEMORY:
        yield f"only {memory / 2**30:.1f} GiB of memory are free; use --block 1024 --workers 1"
    if disk < LITTLE_DISK:
        yield f"only {disk / 2**30:.1f} GiB of disk are free in {folder}"
