"""The story of `wsipipe fit`: annotated sets in, one model file out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsipipe import fit as fitting
from wsipipe.artifacts import check_writable, digest, write_json
from wsipipe.errors import DatasetError, OutputError
from wsipipe.labels import DatasetSpec, read_set
from wsipipe.models import checkpoint
from wsipipe.predict import set_threads
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores
from wsipipe.settings import FitSettings


@dataclass(frozen=True)
class FitJob:
    """What to fit, on which sets, and where the model goes.

    Attributes
    ----------
    datasets : tuple of DatasetSpec
    root : Path
        Folder that relative dataset paths start from.
    out : Path
        Folder of the run: ``model.safetensors``, ``log.csv``, ``run.json``, and the state to resume from.
    """

    datasets: tuple[DatasetSpec, ...]
    root: Path
    out: Path
    settings: FitSettings


def run_fit(job: FitJob, progress: Progress) -> Path:
    """Fit a model on the training part of the sets and return its file; resume an interrupted run.

    Raises
    ------
    DatasetError
        A set is not usable, holds no training image, or the folder holds another run.
    """
    set_threads(allowed_cores())
    pool = [(spec, read_set(spec, "train", job.root)) for spec in job.datasets]
    if empty := [spec.path for spec, images in pool if not images]:
        raise DatasetError(f"{empty[0]}: no image belongs to the training split; check its split file")
    progress.say(f"{sum(len(i) for _, i in pool)} images, {fitting.nuclei_in(pool):,} nuclei for training")
    _claim(job)
    progress.start("steps", job.settings.loop.steps)
    network, card = fitting.fit(pool, job.settings, job.out, lambda step, loss: progress.advance("steps"))
    training = describe(job.datasets, [[a.name for a in images] for _, images in pool], job.settings)
    path = job.out / "model.safetensors"
    checkpoint.save(path, network, fitting.with_training(card, training))
    return path


def describe(datasets: Sequence[DatasetSpec], names: Sequence[Sequence[str]], settings: FitSettings) -> dict[str, Any]:
    """Return what the model card says of the training: sets, images, settings."""
    sets = [{"path": Path(s.path).name, "mpp": s.mpp, "images": len(n)} for s, n in zip(datasets, names, strict=True)]
    return {"datasets": sets, "settings": asdict(settings)}


def _claim(job: FitJob) -> None:
    """Make the folder the run's own, or find that it is already; refuse a folder that holds another run."""
    job.out.mkdir(parents=True, exist_ok=True)
    record = job.out / "run.json"
    check_writable(record)
    identity = digest({"datasets": [asdict(s) for s in job.datasets], "settings": asdict(job.settings)})
    if record.exists() and f'"{identity}"' not in record.read_text(encoding="utf-8"):
        raise OutputError(f"{job.out} holds another run; choose another -o, or delete it")
    write_json(record, {"identity": identity, "datasets": job.datasets, "settings": job.settings})
