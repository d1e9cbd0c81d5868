"""The story of ``wsipipe score``: measured cells in; negative and positive cells, scores and a page out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wsipipe.analysis.derived import derived_class, split_class
from wsipipe.analysis.regions import read_regions
from wsipipe.analysis.scores import MARKERS, STEPS, Marker, grades_of, suggest
from wsipipe.analysis.summary import Row
from wsipipe.artifacts import check_writable
from wsipipe.compartments import column_of
from wsipipe.errors import OutputError, SettingsError
from wsipipe.formats.colours import KNOWN, Rgb, class_colours
from wsipipe.formats.parquet import CellWriter, metadata, row_groups
from wsipipe.formats.subset import COUNTS
from wsipipe.formats.summary import ending_of, write_summary
from wsipipe.pipelines.no_cells import warn_of_none
from wsipipe.pipelines.shown import MASTER, open_pair, record_of, slide_of
from wsipipe.pipelines.summarise import SummariseJob, rows_of_slide
from wsipipe.report.score import write_score
from wsipipe.runs import claims
from wsipipe.schedule.progress import Progress
from wsipipe.settings import ScoreSettings, SlideSettings, SummariseSettings
from wsipipe.slide import Slide

SUGGESTED = "suggested"


@dataclass(frozen=True)
class ScoreJob:
    """Which cells to score, and where to.

    Attributes
    ----------
    cells, output : Path
        Master files.
    tables : tuple of Path
        Numbers of the slide and its regions: .csv, .parquet, .xlsx, .geojson.
    page : Path, optional
        HTML with the histogram, and cells on both sides of each threshold.
    regions : Path, optional
        Annotations, as for ``wsipipe summarise``.
    slide : str
        The slide, where it is not where the run record says.
    """

    cells: Path
    output: Path
    tables: tuple[Path, ...] = ()
    page: Path | None = None
    regions: Path | None = None
    slide: str = ""
    score: ScoreSettings = field(default_factory=ScoreSettings)
    summarise: SummariseSettings = field(default_factory=SummariseSettings)
    slide_settings: SlideSettings = field(default_factory=SlideSettings)


@dataclass(frozen=True)
class Scored:
    """What came of it.

    Attributes
    ----------
    counts : mapping of grade to cells
        "" for cells that lack the compartment, and are not scored.
    thresholds, suggested : tuple of float
        Those used, and those that the cells' histogram suggests (empty: it shows one population).
    rows : tuple of mapping
        As of ``wsipipe summarise``.
    """

    counts: dict[str, int]
    column: str
    thresholds: tuple[float, ...]
    suggested: tuple[float, ...]
    rows: tuple[Row, ...]


@claims(lambda job: (job.output, *job.tables, job.page))
def run_score(job: ScoreJob, progress: Progress) -> Scored:
    """Give every cell the class of how it stained, and sum up; nothing is segmented or measured again.

    Raises
    ------
    SettingsError, StoreError, SlideError, OutputError
    """
    marker = marker_of(job.score)
    _check(job)
    about = metadata(job.cells)
    warn_of_none(job.cells, about, progress)
    column = column_of(marker.compartment, job.score.stain, job.score.statistic)
    _require(job, column, about)
    values = pq.read_table(job.cells, columns=[column])[column].to_numpy().astype(np.float64)
    proposed = suggest(values, len(marker.thresholds))
    thresholds = proposed if job.score.intensity_thresholds == SUGGESTED else marker.thresholds
    if not thresholds:
        raise SettingsError(
            f"--intensity-thresholds suggested: {column} of {job.cells} shows one population (or too few cells), so "
            "that none can be suggested; give them, as in 0.2"
        )
    path = job.slide or slide_of(job.cells, record_of(job.cells)) or ""
    _check_beside(job, about, path)
    counts = _write(job, about, column, thresholds, progress)
    rows = _sum_up(job, path, column, progress)
    if job.page is not None:
        with _opened(job, path, progress) as slide:
            write_score(job.output, job.page, column, thresholds, proposed, rows, slide)
    return Scored(counts, column, thresholds, proposed, tuple(rows))


def marker_of(settings: ScoreSettings) -> Marker:
    """Return where the marker lies, and its thresholds.

    Raises
    ------
    SettingsError
        When the marker is not known, and nobody says where it lies.
    """
    known = MARKERS.get(settings.marker.lower().replace("-", ""))
    if known is None and settings.compartment == "auto":
        raise SettingsError(
            f"--marker {settings.marker}: not one of {', '.join(MARKERS)}; say where it lies: --compartment nucleus, "
            "cytoplasm or cell"
        )
    compartment = known.compartment if known and settings.compartment == "auto" else settings.compartment
    usual = known.thresholds if known else MARKERS["er"].thresholds
    return Marker(compartment, settings.thresholds or usual)


def _check(job: ScoreJob) -> None:
    if job.output.suffix != MASTER:
        raise OutputError(f"{job.output}: scored cells are a .parquet (`wsipipe convert` makes the rest of it)")
    if job.output.exists() and job.output.samefile(job.cells):
        raise OutputError(f"{job.output} is the input itself; give another name")
    for path in job.tables:
        ending_of(path)
    for path in filter(None, (job.output, *job.tables, job.page)):
        check_writable(path)


def _check_beside(job: ScoreJob, about: Mapping[str, Any], path: str) -> None:
    """Refuse, before anything is written, regions and a slide that cannot be used."""
    if job.regions is not None and not job.regions.is_dir():
        read_regions(job.regions, about, lambda line: None)
    if path:
        slide, _ = open_pair(path, job.cells, job.slide_settings)
        slide.close()


def _require(job: ScoreJob, column: str, about: Mapping[str, Any]) -> None:
    """Refuse cells that were not measured for the stain, in one line that says what to do."""
    if column in pq.read_schema(job.cells).names:
        return
    stains = [name for key, name in (about.get("stain_vectors") or {}).items() if key.startswith("Stain ")]
    told = f"were measured for {' and '.join(stains)}" if stains else "were not measured by stain and compartment"
    raise SettingsError(
        f"{job.cells} has no column {column}: its cells {told}; make it with `wsipipe measure {job.cells} --slide "
        f"SLIDE --add stains --stain-vectors hdab -o OUT.parquet`"
    )


def _write(
    job: ScoreJob, about: dict[str, Any], column: str, thresholds: tuple[float, ...], progress: Progress
) -> dict[str, int]:
    """Write every cell with its derived class; return how many cells stained how."""
    grades = STEPS[len(thresholds)]
    base = class_colours(about["classes"])
    types = list(dict.fromkeys(split_class(name)[0] for name in about["classes"]))
    types = [*filter(None, types), ""]
    kept = {key: value for key, value in about.items() if key not in COUNTS}
    kept["classes"] = {name: list(base[name]) for name in types if name in base}
    kept["classes"] |= {
        derived_class(type_, grade): list(_colour(base.get(type_), grade)) for type_ in types for grade in grades
    }
    kept["score"] = {"marker": job.score.marker, "column": column, "thresholds": list(thresholds)}
    counts = dict.fromkeys((*grades, ""), 0)
    schema = pq.read_schema(job.cells).remove_metadata()
    progress.start("cells", about["cells"])
    with CellWriter(job.output, schema, kept) as writer:
        for table in row_groups(job.cells):
            found = grades_of(table[column].to_numpy().astype(np.float64), thresholds).tolist()
            before = [split_class(name)[0] for name in table["class"].to_pylist()]
            names = [derived_class(type_, grade) or None for type_, grade in zip(before, found)]
            place = schema.get_field_index("class")
            writer.write(table.set_column(place, "class", pa.array(names, pa.string())))
            for grade in found:
                counts[grade] += 1
            progress.advance("cells", table.num_rows)
    return counts


def _colour(base: Rgb | None, grade: str) -> Rgb:
    """Return the colour of a derived class: the grade's, halfway from that of the type where there is one."""
    own = KNOWN[grade.lower()]
    r, g, b = own if base is None else ((a + c) // 2 for a, c in zip(own, base))
    return r, g, b


def _sum_up(job: ScoreJob, path: str, column: str, progress: Progress) -> list[Row]:
    """Write the numbers of the slide and its regions, and return them."""
    name = job.cells.name.removesuffix(MASTER)
    asked = SummariseJob(
        (job.output,), job.tables, job.regions, slide=path, measurements=(column,), settings=job.summarise,
        slide_settings=job.slide_settings,
    )  # fmt: skip
    rows = [{"slide": name, **row} for row in rows_of_slide(asked, name, job.output, progress)]
    about = metadata(job.output)
    for table in job.tables:
        write_summary(table, rows, {key: about[key] for key in ("size", "bounds", "fingerprint")})
    return rows


@contextlib.contextmanager
def _opened(job: ScoreJob, path: str, progress: Progress) -> Iterator[Slide | None]:
    """Yield the slide; None, with a word, where it is not at hand."""
    if not path:
        progress.say(f"warning: {job.cells}: its slide was not found, so the page has no pictures; give it: --slide")
        yield None
        return
    slide, _ = open_pair(path, job.output, job.slide_settings)
    with slide:
        yield slide
