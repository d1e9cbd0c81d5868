"""The story of `wsipipe pretrain`: a corpus of patches in, one backbone file out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsipipe import pretrain as pretraining
from wsipipe.artifacts import check_writable, digest, write_json
from wsipipe.corpus import Corpus, open_corpus
from wsipipe.errors import DatasetError, OutputError
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.cmd import CMD
from wsipipe.predict import set_threads
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores
from wsipipe.settings import PretrainSettings, determining
from wsipipe.train.diffusion import PATCH
from wsipipe.train.distributed import World, joined, ranks
from wsipipe.train.pictures import write_reconstructions

SHOWN = 4
"""Patches in the pictures."""


@dataclass(frozen=True)
class PretrainJob:
    """What to pretrain on, and where the backbone goes.

    Attributes
    ----------
    corpus : Path
    out : Path
        Folder of the run: ``backbone.safetensors``, ``log.csv``, ``pictures/``, ``run.json``, and the state to resume
        from.
    """

    corpus: Path
    out: Path
    settings: PretrainSettings = field(default_factory=PretrainSettings)


def run_pretrain(job: PretrainJob, progress: Progress) -> Path:
    """Pretrain a backbone and return its file; resume an interrupted run.

    Raises
    ------
    DatasetError
        The corpus holds no patch to train on, or the loss is not finite.
    OutputError
        The folder cannot be written, or holds another run.
    """
    world = ranks()
    set_threads(max(1, allowed_cores() // world.local_size))
    corpus = open_corpus(job.corpus)
    source = _source(corpus, job)
    with joined(world, pretraining.device_of(job.settings, world)):
        _claim(job, corpus.fingerprint, world)
        progress.say(f"{len(source.indices):,} patches of {len(corpus):,} in {job.corpus.name}")
        progress.start("steps", job.settings.steps)
        backbone = pretraining.pretrain(source, job.settings, job.out, world, _Watcher(job, source, world, progress))
    path = job.out / "backbone.safetensors"
    if world.main:
        checkpoint.save(path, backbone, card_of(job.settings, corpus, source))
    return path


def _source(corpus: Corpus, job: PretrainJob) -> pretraining.Source:
    indices = corpus.indices(job.settings.split)
    if not len(indices):
        raise DatasetError(f"{job.corpus} holds no patch of the split {job.settings.split!r}; try --split all")
    return pretraining.Source(corpus, indices)


def card_of(settings: PretrainSettings, corpus: Corpus, source: pretraining.Source) -> ModelCard:
    """Return the backbone's card, which says on what and how it was trained."""
    mpp = np.asarray(corpus.table["mpp"], float)[source.indices]
    training: dict[str, Any] = {
        "objective": "masked diffusion",
        "corpus": {"fingerprint": corpus.fingerprint, "patches": len(source.indices)},
        "mpp": {"least": float(mpp.min()), "median": float(np.median(mpp)), "most": float(mpp.max())},
        "steps": settings.steps,
        "seed": settings.seed,
        "settings": asdict(settings),
    }
    config = pretraining.new_backbone(settings, source.condition).config
    return ModelCard(settings.name, config, mpp=float(np.median(mpp)), licence=settings.licence, training=training)


class _Watcher:
    """Counts the steps and writes a picture now and then, of the first process's averaged backbone."""

    def __init__(self, job: PretrainJob, source: pretraining.Source, world: World, progress: Progress) -> None:
        self.job, self.world, self.progress = job, world, progress
        chosen = source.indices[np.linspace(0, len(source.indices) - 1, SHOWN).astype(int)]
        low, high = PATCH // 4, PATCH - PATCH // 4
        self.images = np.stack([source.patches.read(int(i))[low:high, low:high] for i in chosen])

    def __call__(self, step: int, loss: float, averaged: CMD) -> None:
        """Hear that *step*, counted from 0, is done."""
        self.progress.advance("steps")
        done, settings = step + 1, self.job.settings
        if self.world.main and (done % settings.picture_every == 0 or done == settings.steps):
            write_reconstructions(self.job.out / "pictures" / f"step-{done:07d}.png", averaged, self.images)


def _claim(job: PretrainJob, fingerprint: str, world: World) -> None:
    """Make the folder the run's own, or find that it is already; refuse a folder that holds another run."""
    if world.main:
        (job.out / "pictures").mkdir(parents=True, exist_ok=True)
        record = job.out / "run.json"
        check_writable(record)
        identity = digest({"corpus": fingerprint, "settings": determining(job.settings)})
        if record.exists() and f'"{identity}"' not in record.read_text(encoding="utf-8"):
            raise OutputError(f"{job.out} holds another run; choose another -o, or delete it")
        write_json(record, {"identity": identity, "corpus": fingerprint, "settings": job.settings})
    world.wait()
