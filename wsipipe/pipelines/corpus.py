"""The story of `wsipipe build-corpus`: slides in, a store of patches out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from wsipipe import __version__
from wsipipe.artifacts import digest, plain
from wsipipe.corpus.candidates import refuse
from wsipipe.corpus.collect import Collector, Listener, Note, Rules, totals
from wsipipe.corpus.read import read_about
from wsipipe.corpus.sources import Naming, Source, find_sources
from wsipipe.corpus.splits import draw_splits
from wsipipe.corpus.table import Origin
from wsipipe.corpus.write import CorpusWriter, publish, stands
from wsipipe.errors import DatasetError, SlideError
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores
from wsipipe.settings import CorpusSettings, SlideSettings, TissueSettings, determining
from wsipipe.slide import fingerprint
from wsipipe.store.write import locked, writing


@dataclass(frozen=True)
class CorpusJob:
    """What to build a corpus from, and where it goes.

    Attributes
    ----------
    inputs : tuple of str
        Slides, pictures, folders, CSV files.
    output : Path
        The store, a folder.
    root : Path, optional
        Folder that the paths in a CSV start from.
    exclude : tuple of Path
        Images of test sets, or folders of them, of which no patch may show a part.
    image_mpp : float, optional
        Resolution of pictures that state none, um/px.
    """

    inputs: tuple[str, ...]
    output: Path
    root: Path | None = None
    exclude: tuple[Path, ...] = ()
    image_mpp: float | None = None
    naming: Naming = field(default_factory=Naming)
    settings: CorpusSettings = field(default_factory=CorpusSettings)
    slide: SlideSettings = field(default_factory=SlideSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)


def run_build_corpus(job: CorpusJob, progress: Progress) -> Path:
    """Build the corpus and return its folder; resume an interrupted run; do nothing when it is there already.

    Slides that cannot be used are named, counted in the report, and left out.

    Raises
    ------
    DatasetError
        An input names nothing, or no patch is left.
    SettingsError
        Settings contradict one another.
    OutputError
        The store cannot be written; whole shards are kept for the next run.
    """
    refuse(job.settings)
    sources = find_sources(job.inputs, job.root, job.naming)
    progress.say(f"{len(sources):,} slides and pictures of {len({s.patient for s in sources}):,} patients")
    target = Path(os.path.realpath(job.output))
    identity = identify(job, sources)
    if stands(target, identity):
        progress.say(f"{job.output}: there already, up to date")
        return job.output
    work = target.with_name(f".{target.name}.work")
    with writing(job.output), locked(work):
        if read_about(work).get("identity") == identity and read_about(work)["complete"]:
            publish(work, target)
            return job.output
        writer = CorpusWriter(work, identity, job.settings.patch, job.settings.shard, job.settings.codec)
        collector = Collector(sources, Rules(job.settings, job.slide, job.tissue, job.image_mpp), writer)
        progress.start("slides", len(sources))
        notes = collector.run(job.settings.threads or allowed_cores(), Bars(progress, writer))
        refuse_empty(notes)
        split = draw_splits((s.patient for s in sources), job.settings.val, job.settings.test, job.settings.seed)
        origins = [Origin(s.name, s.patient, s.organ, split[s.patient]) for s in sources]
        about = {"identity": identity, "wsipipe": __version__, "settings": determining(job.settings)}
        writer.finish(target, {**about, "totals": totals(notes)}, origins)
    return job.output


class Bars(Listener):
    """Passes on how the collection goes."""

    def __init__(self, progress: Progress, writer: CorpusWriter) -> None:
        self._progress, self._writer, self._at = progress, writer, -1

    def slide(self, number: int) -> None:
        """Move the bar on to slide *number*."""
        self._progress.advance("slides", number - self._at)
        self._at = number

    def say(self, line: str) -> None:
        """Pass on a line."""
        self._progress.say(line)


def identify(job: CorpusJob, sources: list[Source]) -> str:
    """Return the digest of everything that determines the corpus."""
    slides = [
        {"name": s.name, "mpp": s.mpp, "patient": s.patient, "organ": s.organ, "file": _fingerprint(s.path)}
        for s in sources
    ]
    settings = [determining(part) for part in (job.settings, job.slide, job.tissue)]
    return digest({"wsipipe": __version__, "slides": slides, "settings": plain(settings), "mpp": job.image_mpp})


def refuse_empty(notes: dict[int, Note]) -> None:
    """Raise :class:`~wsipipe.errors.DatasetError` when no patch was kept, with the commonest reason."""
    found = totals(notes)
    if found["kept"]:
        return
    failures = [note.failure for note in notes.values() if note.failure]
    reasons = ", ".join(f"{count} {reason}" for reason, count in found["dropped"].items())
    why = f"{len(failures)} slides cannot be used, the first: {failures[0]}" if failures else reasons or "no tissue"
    raise DatasetError(f"no patch is left for a corpus of {len(notes)} slides: {why}")


def _fingerprint(path: str) -> str:
    """Return the fingerprint of a slide; empty where the file cannot be read, which is reported in its turn."""
    try:
        return fingerprint(path)
    except SlideError:
        return ""
