"""The story of `wsipipe build-corpus`: slides in, a store of patches out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsipipe._version import __version__
from wsipipe.artifacts import digest, plain
from wsipipe.corpus import open_corpus
from wsipipe.corpus.candidates import refuse
from wsipipe.corpus.collect import Collector, Listener, Rules
from wsipipe.corpus.exclude import Excluded, index_images
from wsipipe.corpus.read import read_about
from wsipipe.corpus.report import match_columns, refuse_empty, slide_columns, write_beside
from wsipipe.corpus.sources import Naming, Source, find_sources, identity_of
from wsipipe.corpus.splits import draw_splits
from wsipipe.corpus.table import Columns, Origin, patch_columns
from wsipipe.corpus.write import CorpusWriter, publish_corpus, stands
from wsipipe.runs import claims, work_of
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores
from wsipipe.segmentation.request import slide_file
from wsipipe.settings import CorpusSettings, SlideSettings, TissueSettings, determining
from wsipipe.slide import changed
from wsipipe.store.write import writing


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
        Folder that the paths in a CSV start from; by default the CSV's own.
    exclude : tuple of str
        Images of test sets, named like *inputs*, of which no patch may show a part.
    image_mpp : float, optional
        Resolution of pictures that state none, µm/px.
    naming : Naming
        How patient and organ are read from file names.
    """

    inputs: tuple[str, ...]
    output: Path
    root: Path | None = None
    exclude: tuple[str, ...] = ()
    image_mpp: float | None = None
    naming: Naming = field(default_factory=Naming)
    settings: CorpusSettings = field(default_factory=CorpusSettings)
    slide: SlideSettings = field(default_factory=SlideSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)


@claims(lambda job: (job.output,))
def run_build_corpus(job: CorpusJob, progress: Progress) -> Path:
    """Build the corpus and return its folder; resume an interrupted run; do nothing when it is there already.

    Slides that cannot be used are named, counted in the report, and left out. Beside the store lie the report, a
    contact sheet and a chart of the organs (see :func:`wsipipe.corpus.report.beside`).

    Raises
    ------
    DatasetError
        An input names nothing, an excluded image cannot be read, or no patch is left.
    SettingsError
        Settings contradict one another.
    OutputError
        The store cannot be written; whole shards are kept for the next run.
    SlideChanged
        A slide was replaced, or written to, while it was read; the next run begins anew.
    """
    refuse(job.settings)
    sources, tests = find_sources(job.inputs, job.root, job.naming), find_sources(job.exclude, job.root)
    progress.say(f"{len(sources):,} slides and pictures of {len({s.patient for s in sources}):,} patients")
    target = Path(os.path.realpath(job.output))
    identity = identify(job, sources, tests)
    if stands(target, identity):
        progress.say(f"{job.output}: there already, up to date")
    else:
        work = work_of(target)
        with writing(job.output):
            if not _finished(work, identity):
                _collect(job, sources, tests, identity, work, progress)
            publish_corpus(work, target)
    write_beside(open_corpus(target), target)
    return job.output


def _collect(
    job: CorpusJob, sources: Sequence[Source], tests: Sequence[Source], identity: str, work: Path, progress: Progress
) -> None:
    """Fill the folder *work* with the corpus, from where it stands; begin anew when a slide's file is another."""
    excluded, before = _index(tests, progress), [slide_file(str(s.path)) for s in sources]
    key = digest({"identity": identity, "files": before})
    writer = CorpusWriter(work, key, job.settings.patch, job.settings.shard, job.settings.codec)
    if len(writer):
        progress.say(f"going on after {len(writer):,} patches")
    rules = Rules(job.settings, job.slide, job.tissue, job.image_mpp, excluded)
    progress.start("slides", len(sources))
    notes = Collector(sources, rules, writer).run(job.settings.threads or allowed_cores(), Bars(progress))
    progress.advance("slides")
    for source, was in zip(sources, before, strict=True):
        if slide_file(str(source.path)) != was:
            raise changed(str(source.path))
    refuse_empty(notes)
    split = draw_splits((s.patient for s in sources), job.settings.val, job.settings.test, job.settings.seed)
    origins = [Origin(s.name, s.patient, s.organ, split[s.patient]) for s in sources]
    about = {
        "identity": identity,
        "wsipipe": __version__,
        "settings": determining(job.settings),
        "excluding": list(excluded.names) if excluded else [],
    }
    tables: dict[str, Columns] = {
        "table": patch_columns(writer.state.patches, origins),
        "slides": slide_columns(origins, notes),
        "excluded": match_columns(origins, notes),
    }
    writer.finish(about, tables)


def _index(tests: Sequence[Source], progress: Progress) -> Excluded | None:
    if not tests:
        return None
    progress.start("excluded", len(tests))
    return index_images(tests, progress.say, lambda: progress.advance("excluded"))


def _finished(work: Path, identity: str) -> bool:
    about = read_about(work)
    return about.get("identity") == identity and bool(about["complete"])


def identify(job: CorpusJob, sources: Sequence[Source], tests: Sequence[Source]) -> str:
    """Return the digest of everything that determines the corpus."""
    settings = [determining(part) for part in (job.settings, job.slide, job.tissue)]
    return digest(
        {
            "wsipipe": __version__,
            "slides": [identity_of(source) for source in sources],
            "tests": [identity_of(test) for test in tests],
            "settings": plain(settings),
            "image_mpp": job.image_mpp,
        }
    )


class Bars(Listener):
    """Passes on how the collection goes."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._at = progress, 0

    def slide(self, number: int) -> None:
        """Move the bar on to slide *number*."""
        self._progress.advance("slides", number - self._at)
        self._at = number

    def say(self, line: str) -> None:
        """Pass on a line."""
        self._progress.say(line)
