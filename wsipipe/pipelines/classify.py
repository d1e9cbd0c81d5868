"""The story of ``wsipipe classify``: a few labelled cells in, every cell typed out, without segmenting again."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsipipe.analysis.classify import Classifier, Scores, learn
from wsipipe.analysis.classify.ask import ask, check_questions
from wsipipe.analysis.classify.reading import columns_of, examples_of, measured_alike
from wsipipe.artifacts import check_writable
from wsipipe.errors import SettingsError
from wsipipe.formats.imported import DRAWN
from wsipipe.formats.labelled import read_labels
from wsipipe.formats.parquet import MASTER, metadata
from wsipipe.runs import claims
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.corrected import AUTO, corrected
from wsipipe.segmentation.results import (
    claim_of,
    each_slide,
    file_for,
    is_many,
    list_results,
    outputs_for,
    pass_on,
)
from wsipipe.segmentation.typed_table import write_typed
from wsipipe.settings import ClassifySettings

Pairs = tuple[tuple[Path, Path], ...]


@dataclass(frozen=True)
class ClassifyJob:
    """Which cells to type, after what.

    Attributes
    ----------
    cells : tuple of Path
        Master files, or folders of them.
    output : Path, optional
        A master file; of several a folder.
    model : Path, optional
        A classifier that was saved.
    fit : Path, optional
        What says the classes of some of *cells*; of several a folder with a file for each that has labels.
    also : tuple of (cells, labels)
        Master files that only give labels.
    save : Path, optional
        Where a fitted classifier is kept.
    questions : Path, optional
        Where the least certain cells go, for QuPath: GeoJSON; of several slides a folder.
    corrections : str
        Of all cells; see :mod:`wsipipe.segmentation.corrected`.
    """

    cells: tuple[Path, ...]
    output: Path | None = None
    model: Path | None = None
    fit: Path | None = None
    also: Pairs = ()
    save: Path | None = None
    questions: Path | None = None
    classify: ClassifySettings = field(default_factory=ClassifySettings)
    corrections: str = AUTO


@dataclass(frozen=True)
class Classified:
    """Cells by class, the labelled cells by class, the classifier, and its scores where it was fitted.

    Attributes
    ----------
    questions : mapping of str to int
        Cells to ask for on each slide, where they were wanted.
    failed : tuple of (name, reason)
    made : tuple of str
        Names of the slides whose typed cells were written.
    """

    cells: dict[str, int]
    labelled: dict[str, int]
    classifier: Classifier
    scores: Scores | None
    questions: Mapping[str, int] = field(default_factory=dict)
    failed: tuple[tuple[str, str], ...] = ()
    made: tuple[str, ...] = ()


@claims(lambda job: (job.output and claim_of(job.cells, job.output), job.save))
def run_classify(job: ClassifyJob, progress: Progress) -> Classified:
    """Type every cell of master files by a classifier that is given, or fitted on labelled cells.

    Cells that were labelled keep their class.

    Raises
    ------
    SettingsError, StoreError, ModelError, OutputError
    """
    found = list_results(job.cells)
    outputs = _check(job, found)
    for cells in (*found.values(), *(cells for cells, _ in job.also)):
        metadata(cells)  # refuses what is no cells file
    beside = next(path for path in (job.output, job.save, job.questions) if path)
    with contextlib.ExitStack() as stack:

        def as_corrected(path: Path) -> Path:
            return stack.enter_context(corrected(path, job.corrections, beside, progress.say))

        masters = {name: as_corrected(path) for name, path in found.items()}
        also = tuple((as_corrected(cells), labels) for cells, labels in job.also)
        done = _classify(replace(job, also=also), masters, outputs, progress)
    for name in set(done.made):
        pass_on(found[name], outputs[name])
    return done


def _classify(
    job: ClassifyJob, masters: Mapping[str, Path], outputs: Mapping[str, Path], progress: Progress
) -> Classified:
    """Type the cells of *masters*."""
    own = {name: read_labels(path, masters[name]) for name, path in _labels(job, masters).items()}
    read = [*((masters[name], labels) for name, labels in own.items())]
    read += [(cells, read_labels(labels, cells)) for cells, labels in job.also]
    scores = None
    if job.model is not None:
        classifier = Classifier.load(job.model)
    else:
        files = [cells for cells, _ in read]
        examples = examples_of(read, columns_of(files, job.classify.columns))
        colours = {name: rgb for _, labels in read for name, rgb in labels.colours.items()}
        classifier, scores = learn(examples, job.classify, colours, measured_alike(files))
    counts = dict(classifier.about["labelled"]) if scores or job.model is None else {}
    if job.save is not None:
        classifier.save(job.save)
    found = Counter[str](dict.fromkeys(classifier.classes, 0))
    failed: tuple[tuple[str, str], ...] = ()
    done: tuple[str, ...] = ()
    if outputs:

        def typed(name: str, master: Path) -> dict[str, int]:
            return write_typed(master, outputs[name], classifier, progress, own.get(name))

        made, failed = each_slide(masters, progress, typed)
        for each in made.values():
            found.update(each)
        done = tuple(made)
    asked = ask(job.questions, masters, is_many(job.cells), classifier, own, job.classify.ask) if job.questions else {}
    return Classified(dict(found) if outputs else {}, counts, classifier, scores, asked, failed, done)


def _check(job: ClassifyJob, masters: Mapping[str, Path]) -> dict[str, Path]:
    """Return where the typed cells go, by name; refuse what cannot be done, before any work."""
    if (job.model is None) == (job.fit is None and not job.also):
        raise SettingsError("give either --fit LABELS (cells with a class) or --model FILE (a saved classifier)")
    if job.output is None and job.save is None and job.questions is None:
        raise SettingsError("nothing to write: give -o OUT for the typed cells, or --save FILE for the classifier")
    if job.fit is not None and is_many(job.cells) != job.fit.is_dir():
        raise SettingsError(
            f"--fit {job.fit}: for several slides give a folder with NAME.geojson for those that have labels; for one, "
            "a file"
        )
    if job.save is not None:
        check_writable(job.save)
    if job.questions is not None:
        check_questions(job.questions, masters, is_many(job.cells))
    return outputs_for(job.cells, masters, job.output, "typed cells") if job.output else {}


def _labels(job: ClassifyJob, masters: Mapping[str, Path]) -> dict[str, Path]:
    """Return the labels of each slide that has some, by name."""
    if job.fit is None:
        return {}
    found = {name: path for name in masters if (path := file_for(job.fit, name, (*DRAWN, MASTER)))}
    if not found:
        raise SettingsError(
            f"--fit {job.fit} holds labels of none of the {len(masters)} slides; expected NAME.geojson, as in "
            f"{next(iter(masters))}.geojson"
        )
    return found
