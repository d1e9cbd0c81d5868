"""The story of `wsipipe label`: cells of several slides, the least certain first, given a class in the browser."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsipipe.analysis.classify import Classifier, Examples, Scores
from wsipipe.analysis.classify.candidates import candidates_of
from wsipipe.analysis.classify.reading import columns_of, how_measured, measured_alike
from wsipipe.artifacts import check_writable
from wsipipe.errors import NotAModel, SettingsError, in_words
from wsipipe.formats.colours import Rgb
from wsipipe.formats.parquet import metadata
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.found_before import open_pair, record_of, slide_of
from wsipipe.segmentation.results import list_results
from wsipipe.settings import ClassifySettings, SlideSettings
from wsipipe.slide import Slide
from wsipipe.view.closeup import CloseUps
from wsipipe.view.labelling import Labelling
from wsipipe.view.server import listen, new_token, serve
from wsipipe.view.session import Session
from wsipipe.view.slides import SlideViewers


@dataclass(frozen=True)
class LabelJob:
    """What to label.

    Attributes
    ----------
    cells : tuple of Path
        Master files, or folders of them.
    save : Path
        Where the classifier is kept; one that is there is gone on with.
    classes : tuple of str
        To offer.
    slide : str
        The slide of a single file, where it is not where the run record says.
    port : int
        0 takes a free one.
    """

    cells: tuple[Path, ...]
    save: Path
    classes: tuple[str, ...] = ()
    slide: str = ""
    port: int = 0
    classify: ClassifySettings = field(default_factory=ClassifySettings)
    settings: SlideSettings = field(default_factory=SlideSettings)


@dataclass(frozen=True)
class LabelledCells:
    """Labelled cells by class, and the scores of what was learned from them."""

    counts: dict[str, int]
    scores: Scores | None


@contextlib.contextmanager
def _opened(job: LabelJob, progress: Progress) -> Any:
    """Yield what is shown: a session and its pictures."""
    check_writable(job.save)
    masters = list_results(job.cells)
    slides = _slides(job, masters)
    files = list(masters.values())
    if job.save.exists():
        known = Classifier.load(job.save)
        columns, measured = columns_of(files, ",".join(known.columns)), how_measured(known.about)
        try:
            examples = Examples.of_dict(known.columns, known.examples)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise NotAModel(f"{job.save}: its labelled cells cannot be read ({in_words(error)})") from error
        if not len(examples):
            raise SettingsError(
                f"{job.save} does not hold the cells it was fitted on, so that it cannot be gone on with; give another "
                "name with --save"
            )
        colours = dict(known.colours)
    else:
        columns, measured = columns_of(files, job.classify.columns), measured_alike(files)
        examples, colours = Examples.none(columns), dict[str, Rgb]()
    classes = list(job.classes)
    for path in files:
        told = metadata(path)["classes"]
        classes += [] if job.classes else list(told)
        colours |= {name: rgb for name, rgb in told.items() if rgb and name not in colours}
    progress.say(f"reading cells of {len(files):,} slides")
    candidates = candidates_of(masters, columns)
    session = Session(candidates, examples, classes, job.classify, job.save, colours, measured)

    def opened(number: int) -> Slide:
        slide, warnings = open_pair(slides[number], files[number], job.settings)
        for warning in warnings:
            progress.say(f"warning: {warning}")
        return slide

    pictures = CloseUps(candidates, opened)
    viewers = SlideViewers(candidates.names, candidates.masters, opened)
    with contextlib.closing(pictures), contextlib.closing(viewers):
        yield Labelling(session, pictures, viewers)


def run_label(job: LabelJob, progress: Progress, started: Callable[[str], None]) -> LabelledCells:
    """Serve the page until interrupted; *started* hears the address to open. Return what was labelled by then.

    Raises
    ------
    SettingsError, SlideError, StoreError, ModelError, MissingDependency, OutputError
    """
    with _opened(job, progress) as shown, listen(job.port) as listener:
        with contextlib.suppress(KeyboardInterrupt):
            serve(shown, listener, new_token(), started)
        return LabelledCells(shown.session.examples.counts, shown.session.scores)


def _slides(job: LabelJob, masters: dict[str, Path]) -> list[str]:
    """Return the slide of each master file."""
    if job.slide and len(masters) > 1:
        raise SettingsError(f"--slide {job.slide} goes with one cells file, and there are {len(masters)}")
    found = []
    for name, master in masters.items():
        path = job.slide or slide_of(master, record_of(master))
        if path is None:
            raise SettingsError(
                f"{name}: its slide was not found (no run record beside {master}, or the slide is gone); give it with "
                "--slide, or leave this file out"
            )
        found.append(path)
    return found
