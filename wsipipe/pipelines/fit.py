"""The story of `wsipipe fit`: annotated sets in, one model file out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsipipe.artifacts import digest, remove_leftovers
from wsipipe.errors import DatasetError
from wsipipe.evaluate.validation import Validation
from wsipipe.labels import DEFAULT_MPP, Annotated, DatasetSpec, assumption, few, read_set
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard, Segmenter, model_hash
from wsipipe.models.threads import set_threads
from wsipipe.models.zoo import resolve
from wsipipe.runs import claims, own_folder
from wsipipe.schedule.progress import Progress, Reached
from wsipipe.schedule.resources import network_threads
from wsipipe.settings import RANDOM, FitSettings, LoopSettings, chosen
from wsipipe.train import fitting as fitting
from wsipipe.train.fitting import Pool
from wsipipe.train.samples import planned, types_in

RECORD = "run.json"


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


@claims(lambda job: (job.out / RECORD,))
def run_fit(job: FitJob, progress: Progress) -> Path:
    """Fit a model on the training part of the sets and return its file; resume an interrupted run.

    Raises
    ------
    DatasetError
        A set is not usable, holds no training image, or the loss is not finite.
    OutputError
        The folder holds another run, or the disk is full.
    """
    remove_leftovers(job.out / "*")
    set_threads(network_threads())
    pool = read_pool(job)
    settings = planned(job.settings, pool)
    _claim(job, pool, settings)
    watch = _validation(job, progress) if settings.validate_every else None
    _tell(pool, settings, progress)
    network, card = fitting.fit(pool, settings, job.out, _stepping(settings, progress), watch, _counting(progress))
    training = describe(pool, settings)
    training |= {name: card.training[name] for name in ("trainable",) if not settings.types_only}
    if watch:
        training["validation"] = {"score": settings.score, "best": watch.best, "step": watch.best_step}
        if settings.keep == "best":
            network = _best(watch)
    if settings.types_only:  # of a model that was trained before
        training = card.training | {"types": training}
    path = job.out / "model.safetensors"
    checkpoint.save(path, network, fitting.with_training(card, training))
    return path


def read_pool(job: FitJob) -> Pool:
    """Return the training images of every set; only a few of them under ``--shots``.

    Raises
    ------
    DatasetError
    """
    pool = [(spec, read_set(spec, "train", job.root, job.settings.working_mpp)) for spec in job.datasets]
    if empty := [spec.path for spec, images in pool if not images]:
        raise DatasetError(f"{empty[0]}: no image belongs to the training split; check its split file")
    if not fitting.nuclei_in(pool):
        raise DatasetError(f"{pool[0][0].path}: none of the training images has an annotated nucleus; check the labels")
    if not job.settings.shots:
        return pool
    chosen = few([a for _, images in pool for a in images], job.settings.shots, job.settings.seed)
    kept = [(spec, [a for a in images if any(a is one for one in chosen)]) for spec, images in pool]
    return [(spec, images) for spec, images in kept if images]


def describe(pool: Pool, settings: FitSettings) -> dict[str, Any]:
    """Return what the model card says of the training: sets, images, settings."""
    sets: list[dict[str, Any]] = [{"path": Path(s.path).name, "mpp": s.mpp, "images": len(a)} for s, a in pool]
    if settings.shots:
        sets = [one | {"names": [a.name for a in images]} for one, (_, images) in zip(sets, pool, strict=True)]
    return {"datasets": sets, "settings": asdict(settings)}


def _tell(pool: Pool, settings: FitSettings, progress: Progress) -> None:
    for line in filter(None, (assumption(spec, images) for spec, images in pool)):
        progress.say(f"warning: {line}")
    images = [a for _, images in pool for a in images]
    types = types_in(pool, settings.types)
    what = f"{len(images)} images, {fitting.nuclei_in(pool):,} nuclei for training"
    progress.say(what + (f" of the types {', '.join(types)}" if types else ""))
    if settings.shots:
        progress.say("shots: " + ", ".join(a.name for a in images))
    mode = "frozen backbone" if settings.frozen else "whole network"
    if not settings.frozen and settings.backbone not in RANDOM and _card(settings).backbone.condition:
        progress.say(f"warning: the encoder that {settings.backbone} was pretrained with is left out from here on")
    if settings.loop.optimiser == "lbfgs":
        progress.say(f"{mode}, linear head to its optimum by L-BFGS, crops of {settings.crop_px} px")
        return
    progress.say(f"{mode}, {settings.loop.steps} steps of {settings.batch} crops of {settings.crop_px} px")


def _card(settings: FitSettings) -> ModelCard:
    return checkpoint.read_card(resolve(settings.backbone))


def _stepping(settings: FitSettings, progress: Progress) -> Callable[[int, float], None]:
    """Return what shows how many steps are done, those of the run before it was resumed among them."""
    if settings.loop.optimiser == "lbfgs":  # nobody knows how many, and they take seconds
        return lambda step, loss: None
    progress.start("steps", settings.loop.steps)
    reached = Reached(progress, "steps")
    return lambda step, loss: reached(step + 1)


def _counting(progress: Progress) -> Callable[[int, int], None]:
    """Return what shows how many crops have their features."""
    reached = Reached(progress, "features")

    def cached(done: int, total: int) -> None:
        if not reached.done:
            progress.start("features", total)
        reached(done)

    return cached


def _validation(job: FitJob, progress: Progress) -> Validation:
    images: list[Annotated] = []
    for spec in job.datasets:
        if spec.split or spec.default_split == "val":
            images += read_set(spec, "val", job.root, job.settings.working_mpp)
    if not images:
        raise DatasetError("--validate-every: no image belongs to the validation split; give one with --split")
    return Validation(images, job.out, job.settings, progress)


def _best(watch: Validation) -> Segmenter:
    network, _ = checkpoint.load(watch.path)
    assert isinstance(network, Segmenter)
    return network


def _claim(job: FitJob, pool: Pool, settings: FitSettings) -> None:
    """Write down whose the folder is, or find that it is this run's already; refuse one that holds another run."""
    identity = digest({"datasets": [chosen(s) for s in job.datasets], "settings": chosen(_extendable(job.settings))})
    images = {spec.path: [a.name for a in images] for spec, images in pool}
    assumed = {spec.path: DEFAULT_MPP for spec, images in pool if assumption(spec, images)}
    about = {"datasets": job.datasets, "images": images, "settings": settings, "assumed_mpp": assumed}
    weights = "backbone_sha256", _weights(settings), f"--backbone {settings.backbone}"
    own_folder(job.out / RECORD, identity, about, weights)


def _weights(settings: FitSettings) -> str | None:
    """Return the SHA-256 of the backbone's file, None of one that starts from random weights."""
    return None if settings.backbone in RANDOM else model_hash(resolve(settings.backbone))


def _extendable(settings: FitSettings) -> FitSettings:
    """Return *settings* without what may change from one call to the next: how long a plateau lasts, and its end."""
    if settings.loop.schedule != "plateau":
        return settings
    loop = dataclasses.replace(settings.loop, steps=0, cooldown=LoopSettings.cooldown)
    return dataclasses.replace(settings, loop=loop)
