"""The story of `wsipipe pretrain`: a corpus of patches in, one backbone file out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsipipe.artifacts import digest, remove_leftovers
from wsipipe.corpus import Corpus, is_corpus, open_corpus
from wsipipe.errors import DatasetError, SettingsError, install_line
from wsipipe.models import backbone_kinds, checkpoint
from wsipipe.models.backbone import Backbone
from wsipipe.models.conditioning import encoder_name
from wsipipe.models.intact import digest_of
from wsipipe.models.threads import set_threads
from wsipipe.models.vae_files import read_vae
from wsipipe.pipelines.autoencoder import check_autoencoder, run_autoencoder
from wsipipe.pipelines.corpus import CorpusJob, run_build_corpus
from wsipipe.runs import claims, own_folder
from wsipipe.schedule.progress import Progress, Reached
from wsipipe.schedule.resources import allowed_cores, network_threads
from wsipipe.settings import CorpusSettings, PretrainSettings, determining
from wsipipe.train import pretraining as pretraining
from wsipipe.train.distributed import World, joined, ranks
from wsipipe.train.features import features_of
from wsipipe.train.log import has_tensorboard
from wsipipe.train.loop import STATE
from wsipipe.train.snapshots import Snapshots, card_of

if TYPE_CHECKING:
    import torch

RECORD = "run.json"


@dataclass(frozen=True)
class PretrainJob:
    """What to pretrain on, and where the backbone goes.

    Attributes
    ----------
    sources : tuple of str
        A corpus; or slides, pictures and folders, of which one is built first, as *corpus* says.
    out : Path
        Folder of the run: ``backbone.safetensors``, ``log.csv``, ``pictures/``, ``run.json``, and the state to resume
        from.
    image_mpp : float, optional
        Resolution of pictures that state none, µm/px, when a corpus is built.
    """

    sources: tuple[str, ...]
    out: Path
    settings: PretrainSettings = field(default_factory=PretrainSettings)
    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    image_mpp: float | None = None


@claims(lambda job: (job.out / RECORD,) if ranks().main else ())
def run_pretrain(job: PretrainJob, progress: Progress) -> Path:
    """Pretrain a backbone and return its file, or an autoencoder and return its folder; resume an interrupted run.

    Raises
    ------
    DatasetError
        The corpus holds no patch to train on, or the loss is not finite.
    OutputError
        The folder cannot be written, or holds another run.
    """
    world = ranks()
    if world.main:
        remove_leftovers(job.out / "*")
    cores = max(1, allowed_cores() // world.local_size)
    set_threads(min(cores, network_threads()))
    device = pretraining.device_of(job.settings, world)
    pretraining.samples_here(job.settings, world)
    if job.settings.autoencoder:
        check_autoencoder(job.settings)
    else:
        pretraining.open_space(job.settings)
    corpus = _corpus(job, world, progress)
    _claim(job, corpus, world)
    settings = replace(job.settings, workers=_workers(job.settings, device, cores))
    if settings.autoencoder:
        return run_autoencoder(corpus, settings, job.out, device, progress)
    with joined(world, device):
        source = _source(corpus, settings, device, world, progress)
        _introduce(job, source, world, progress)
        snapshots = Snapshots(job.out, job.settings, corpus, source) if world.main else None
        steps = Reached(progress, "steps")

        def told(step: int, loss: float, averaged: Backbone) -> None:
            steps(step + 1)
            if snapshots:
                snapshots(step + 1, averaged)

        backbone = pretraining.pretrain(source, settings, job.out, world, told)
    path = job.out / "backbone.safetensors"
    if world.main:
        checkpoint.save(path, backbone, card_of(job.settings, corpus, source, backbone))
    return path


def _corpus(job: PretrainJob, world: World, progress: Progress) -> Corpus:
    """Return the corpus that *job* names, or build it in the run's folder."""
    if len(job.sources) == 1 and is_corpus(job.sources[0]):
        return open_corpus(job.sources[0])
    if world.size > 1:
        raise SettingsError(
            f"{job.sources[0]} is no corpus, and {world.size} processes cannot build one together; "
            "run `wsipipe build-corpus` first"
        )
    job.out.mkdir(parents=True, exist_ok=True)
    corpus = CorpusJob(job.sources, job.out / "corpus.zarr", image_mpp=job.image_mpp, settings=job.corpus)
    return open_corpus(run_build_corpus(corpus, progress))


def _claim(job: PretrainJob, corpus: Corpus, world: World) -> None:
    """Make the folder the run's own, or find that it is already; refuse one that holds another run's checkpoint."""
    if not world.main:
        return
    (job.out / "pictures").mkdir(parents=True, exist_ok=True)
    identity = digest(
        {"corpus": corpus.fingerprint, "settings": identifying(job.settings)} | _autoencoder(job.settings)
    )
    about = {"corpus": corpus.fingerprint, "settings": job.settings}
    weights = "encoder", _encoder(job.settings), f"--encoder {job.settings.encoder}"
    own_folder(job.out / RECORD, identity, about, weights, begun=(job.out / STATE).exists())


def _encoder(settings: PretrainSettings) -> str | None:
    """Return the encoder's name, which holds the digest of local weights; None without one."""
    return encoder_name(settings.encoder) if settings.encoder else None


def _autoencoder(settings: PretrainSettings) -> dict[str, str]:
    """Return the digest of the autoencoder's weights, where there is one."""
    return {"vae": digest_of(read_vae(Path(settings.vae)).state_dict())} if settings.vae else {}


def identifying(settings: PretrainSettings) -> dict[str, Any]:
    """Return what makes a run another run. At a constant rate more steps only go on with the same one."""
    found = determining(settings)
    return {k: v for k, v in found.items() if k != "steps" or settings.schedule != "constant"}


def _workers(settings: PretrainSettings, device: torch.device, cores: int) -> int:
    """Return how many processes read patches: on a CPU the network needs the cores itself."""
    automatic = 0 if device.type == "cpu" else max(1, cores - 1)
    return automatic if settings.workers is None else settings.workers


def _source(
    corpus: Corpus, settings: PretrainSettings, device: torch.device, world: World, progress: Progress
) -> pretraining.Source:
    """Return what to train on, with the encoder's features."""
    indices = corpus.indices(settings.split)
    if not len(indices):
        raise DatasetError(f"{corpus.path} holds no patch of the split {settings.split!r}; try --split all")
    if not settings.encoder:
        return pretraining.Source(corpus, indices)
    progress.start("encoding", -(-len(corpus) // world.size))
    features = features_of(
        corpus,
        settings.encoder,
        device,
        world,
        settings.workers or 0,
        lambda n: progress.advance("encoding", n),
        settings.token,
    )
    return pretraining.Source(corpus, indices, features)


def _introduce(job: PretrainJob, source: pretraining.Source, world: World, progress: Progress) -> None:
    """Say what will be trained on what."""
    settings = job.settings
    condition = f" conditioned on {settings.encoder} ({source.condition} wide)" if settings.encoder else ""
    title = f"{backbone_kinds.KINDS[settings.backbone].title}-{settings.size}"
    progress.say(
        f"{title}{condition}: {settings.steps:,} steps of {settings.batch} samples from "
        f"{len(source.indices):,} patches, {world.size} process{'es' if world.size > 1 else ''}"
    )
    if not has_tensorboard():
        progress.say(f"log: {job.out / 'log.csv'}; for TensorBoard's too: {install_line('tensorboard')}")
    progress.start("steps", settings.steps)
