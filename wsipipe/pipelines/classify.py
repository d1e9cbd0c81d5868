"""The story of ``wsipipe classify``: a few labelled cells in, every cell typed out, without segmenting again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import wsipipe
from wsipipe.artifacts import check_writable, digest
from wsipipe.classify import Classifier, Scores, cross_validate, fit, regions
from wsipipe.errors import OutputError, SettingsError
from wsipipe.formats.columns import measurement_names
from wsipipe.formats.labelled import Labels, read_labels
from wsipipe.formats.parquet import CellWriter, metadata, row_groups
from wsipipe.formats.subset import COUNTS
from wsipipe.pipelines.no_cells import warn_of_none
from wsipipe.schedule.progress import Progress
from wsipipe.settings import ClassifySettings

NOT_COMPARABLE = ("probability", "class_probability")
"""Measurements of the model rather than of the cell."""


@dataclass(frozen=True)
class ClassifyJob:
    """Which cells to type, after what.

    Attributes
    ----------
    cells, output : Path
        Master files.
    model : Path, optional
        A classifier that was saved.
    labels : tuple of (cells, labels)
        Master files and what says the classes of some of their cells.
    save : Path, optional
        Where a fitted classifier is kept.
    """

    cells: Path
    output: Path | None = None
    model: Path | None = None
    labels: tuple[tuple[Path, Path], ...] = ()
    save: Path | None = None
    classify: ClassifySettings = field(default_factory=ClassifySettings)


@dataclass(frozen=True)
class Classified:
    """Cells by class, the labelled cells by class, and the scores of the classifier where it was fitted."""

    cells: dict[str, int]
    labelled: dict[str, int]
    classifier: Classifier
    scores: Scores | None


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled cells: measurements (n, d), class names (n,), and the group (n,) that each is left out with."""

    x: NDArray[np.float64]
    kinds: list[str]
    groups: NDArray[np.int64]
    kind_of_group: str


def run_classify(job: ClassifyJob, progress: Progress) -> Classified:
    """Type every cell of a master file by a classifier that is given, or fitted on labelled cells.

    Cells that were labelled keep their class.

    Raises
    ------
    SettingsError, StoreError, ModelError, OutputError
    """
    _check(job)
    for cells in (job.cells, *(cells for cells, _ in job.labels)):
        metadata(cells)  # refuses what is no cells file
    read = [(cells, read_labels(labels, cells)) for cells, labels in job.labels]
    scores, counts = None, dict[str, int]()
    if job.model is not None:
        classifier = Classifier.load(job.model)
    else:
        examples, columns = collect(read, job.classify)
        classes = sorted(set(examples.kinds))
        counts = {name: examples.kinds.count(name) for name in classes}
        y = np.array([classes.index(kind) for kind in examples.kinds], np.int64)
        classifier = fit(examples.x, y, columns, classes, job.classify.l2)
        settings = job.classify
        scores = cross_validate(
            examples.x, y, examples.groups, classes, settings.l2, settings.folds, examples.kind_of_group
        )
        classifier = replace(classifier, colours=_colours(read), about=_about(job, counts, scores))
    if job.save is not None:
        classifier.save(job.save)
    own = next((labels for cells, labels in read if cells == job.cells), Labels())
    found = _write(job, classifier, own, progress) if job.output else {}
    return Classified(found, counts, classifier, scores)


def _check(job: ClassifyJob) -> None:
    if (job.model is None) == (not job.labels):
        raise SettingsError("give either --fit LABELS (cells with a class) or --model FILE (a saved classifier)")
    if job.output is None and job.save is None:
        raise SettingsError("nothing to write: give -o OUT for the typed cells, or --save FILE for the classifier")
    if job.output is not None and job.output.suffix != ".parquet":
        raise OutputError(f"{job.output}: typed cells are a .parquet (`wsipipe convert` makes the rest of it)")
    for path in filter(None, (job.output, job.save)):
        check_writable(path)


def collect(read: Sequence[tuple[Path, Labels]], settings: ClassifySettings) -> tuple[Examples, tuple[str, ...]]:
    """Return the labelled cells of several master files, and the measurements that all of them have."""
    columns = _columns([cells for cells, _ in read], settings)
    parts, kinds, places, slide = [], list[str](), [], list[int]()
    for number, (cells, labels) in enumerate(read):
        for table in row_groups(cells):
            found = labels.of(table)
            rows = [i for i, kind in enumerate(found) if kind]
            if rows:
                taken = table.take(rows)
                parts.append(matrix(taken, columns))
                places.append(matrix(taken, ("x", "y")) * np.array(metadata(cells)["mpp"]))
                kinds += [found[i] for i in rows]
                slide += [number] * len(rows)
    if not parts:
        raise SettingsError("none of the labels meets a cell; are they of these cells, or of another slide?")
    x, slides = np.concatenate(parts), np.array(slide, np.int64)
    if len(set(slide)) > 1:
        return Examples(x, kinds, slides, "slides"), columns
    groups, what = regions(np.concatenate(places), settings.region_um)
    return Examples(x, kinds, groups, what), columns


def _columns(files: Sequence[Path], settings: ClassifySettings) -> tuple[str, ...]:
    """Return the measurements to use: those asked for, or all that every file has."""
    each = [set(measurement_names(pq.read_schema(path))) - set(NOT_COMPARABLE) for path in files]
    common = set.intersection(*each)
    asked = [name.strip() for name in settings.columns.split(",") if name.strip()]
    for name in asked:
        if name not in common:
            raise SettingsError(f"--columns: not all cells have {name!r}; they have {', '.join(sorted(common))}")
    first = measurement_names(pq.read_schema(files[0]))
    return tuple(asked or (name for name in first if name in common))


def matrix(table: pa.Table, columns: Sequence[str]) -> NDArray[np.float64]:
    """Return *columns* of *table* as float64 (n, d)."""
    return np.column_stack([table[name].to_numpy().astype(np.float64) for name in columns])


def _colours(read: Sequence[tuple[Path, Labels]]) -> dict[str, tuple[int, int, int]]:
    return {name: rgb for _, labels in read for name, rgb in labels.colours.items()}


def _about(job: ClassifyJob, counts: dict[str, int], scores: Scores | None) -> dict[str, Any]:
    """Return what a classifier says of how it was made."""
    told = scores and {
        "confusion": scores.confusion,
        "balanced_accuracy": round(scores.balanced_accuracy, 4),
        "folds": scores.folds,
        "groups": f"{scores.regions} {scores.kind}",
    }
    return {"labelled": counts, "l2": job.classify.l2, "cross_validation": told, "version": wsipipe.__version__}


def _write(job: ClassifyJob, classifier: Classifier, own: Labels, progress: Progress) -> dict[str, int]:
    """Write every cell with its class; return the cells of each class."""
    assert job.output is not None
    about, schema = metadata(job.cells), pq.read_schema(job.cells).remove_metadata()
    warn_of_none(job.cells, about, progress)
    lacking = [name for name in classifier.columns if name not in schema.names]
    if lacking:
        raise SettingsError(f"{job.cells} lacks {', '.join(lacking)}; `wsipipe measure --add ...` makes them")
    if "class_probability" not in schema.names:
        place = schema.get_field_index("class") + 1
        schema = schema.insert(place, pa.field("class_probability", pa.float32()))
    kept = {key: value for key, value in about.items() if key not in COUNTS}
    kept["classes"] = {name: classifier.colours.get(name) for name in classifier.classes}
    kept["classifier"] = {"sha256": digest([classifier.weights, classifier.centre, classifier.spread])}
    kept["classifier"] |= {"columns": classifier.columns, **classifier.about}
    progress.start("cells", about["cells"])
    found: dict[str, int] = dict.fromkeys(classifier.classes, 0)
    with CellWriter(job.output, schema, kept) as writer:
        for table in row_groups(job.cells):
            typed = _typed(table, classifier, own.of(table), schema)
            for entry in pc.value_counts(typed["class"].combine_chunks()).to_pylist():
                found[entry["values"]] = found.get(entry["values"], 0) + entry["counts"]
            writer.write(typed)
            progress.advance("cells", table.num_rows)
    return found


def _typed(table: pa.Table, classifier: Classifier, labels: list[str], schema: pa.Schema) -> pa.Table:
    """Return *table* with the classes found, or given by *labels*, and the probability of each."""
    probabilities = classifier.probabilities(matrix(table, classifier.columns))
    best = probabilities.argmax(axis=1)
    for i, kind in enumerate(labels):
        if kind in classifier.classes:
            best[i] = classifier.classes.index(kind)
    columns = {name: table[name] for name in table.schema.names}
    columns["class"] = pa.array([classifier.classes[k] for k in best.tolist()], pa.string())
    chosen = probabilities[np.arange(len(best)), best]
    columns["class_probability"] = pa.array(chosen.astype(np.float32))
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)
