"""The story of ``wsipipe score``: measured cells in; negative and positive cells, scores and a page out."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsipipe.analysis.regions import read_regions
from wsipipe.analysis.scored import require_column, values_of, write_scored
from wsipipe.analysis.scores import marker_of, suggest
from wsipipe.analysis.summary import Row
from wsipipe.artifacts import check_writable
from wsipipe.cells.compartments import column_of
from wsipipe.errors import OutputError, SettingsError
from wsipipe.formats.parquet import metadata
from wsipipe.pipelines.summarise import SummariseJob, rows_of_slide, write_tables
from wsipipe.report.score import write_score
from wsipipe.runs import claims
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.found_before import open_pair, record_of, slide_of
from wsipipe.segmentation.no_cells import warn_of_none
from wsipipe.segmentation.results import (
    check_tables,
    claim_of,
    each_slide,
    file_for,
    is_many,
    list_results,
    outputs_for,
    pass_on,
)
from wsipipe.segmentation.sheet import read_sheet
from wsipipe.settings import ScoreSettings, SlideSettings, SummariseSettings
from wsipipe.slide import Slide

SUGGESTED = "suggested"
PAGE = ".html"


@dataclass(frozen=True)
class ScoreJob:
    """Which cells to score, and where to.

    Attributes
    ----------
    cells : tuple of Path
        Master files, or folders of them.
    output : Path
        A master file; of several a folder.
    tables : tuple of Path
        Numbers of all slides and their regions: .csv, .parquet, .xlsx; of one also .geojson.
    page : Path, optional
        HTML with the histogram, and cells on both sides of each threshold; of several a folder.
    regions, sheet : Path, optional
        Annotations, and the table that named the slides; as for ``wsipipe summarise``.
    slide : str
        The slide, where it is not where the run record says.
    """

    cells: tuple[Path, ...]
    output: Path
    tables: tuple[Path, ...] = ()
    page: Path | None = None
    regions: Path | None = None
    sheet: Path | None = None
    slide: str = ""
    score: ScoreSettings = field(default_factory=ScoreSettings)
    summarise: SummariseSettings = field(default_factory=SummariseSettings)
    slide_settings: SlideSettings = field(default_factory=SlideSettings)


@dataclass(frozen=True)
class ScoredSlide:
    """One slide's cells by grade ("": they lack the compartment), thresholds its histogram suggests, and its rows."""

    counts: dict[str, int]
    suggested: tuple[float, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Scored:
    """What came of it.

    Attributes
    ----------
    slides : mapping of str to ScoredSlide
        By the name of their results.
    thresholds : tuple of float
        Those used, the same for all slides.
    suggested : tuple of float
        Those that the histogram of all cells suggests (empty: it shows one population).
    failed : tuple of (name, reason)
    """

    slides: Mapping[str, ScoredSlide]
    column: str
    thresholds: tuple[float, ...]
    suggested: tuple[float, ...]
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def counts(self) -> Counter[str]:
        """Cells of all slides by grade."""
        total = Counter[str]()
        for slide in self.slides.values():
            total.update(slide.counts)
        return total

    @property
    def rows(self) -> list[Row]:
        """Numbers of all slides and regions."""
        return [row for slide in self.slides.values() for row in slide.rows]


@claims(lambda job: (claim_of(job.cells, job.output), *job.tables, job.page and claim_of(job.cells, job.page)))
def run_score(job: ScoreJob, progress: Progress) -> Scored:
    """Give every cell the class of how it stained, and sum up; nothing is segmented or measured again.

    Raises
    ------
    SettingsError, StoreError, SlideError, OutputError
    """
    marker = marker_of(job.score)
    masters = list_results(job.cells)
    outputs, pages = _check(job, masters)
    sheet = read_sheet(job.sheet, progress.say) if job.sheet else None
    column = column_of(marker.compartment, job.score.stain, job.score.statistic)
    values = {name: values_of(path, column, len(masters)) for name, path in masters.items()}
    proposed = suggest(np.concatenate(list(values.values())), len(marker.thresholds))
    thresholds = proposed if job.score.intensity_thresholds == SUGGESTED else marker.thresholds
    if not thresholds:
        raise SettingsError(
            f"--intensity-thresholds suggested: {column} of {', '.join(map(str, job.cells))} shows one population (or "
            "too few cells), so that none can be suggested; give them, as in 0.2"
        )

    def scored(name: str, master: Path) -> ScoredSlide:
        about, out = metadata(master), outputs[name]
        warn_of_none(master, about, progress)
        require_column(master, column, about)
        own = suggest(values[name], len(thresholds)) if len(masters) > 1 else proposed
        path = job.slide or slide_of(master, record_of(master)) or ""
        _check_beside(job, file_for(job.regions, name), master, path)
        counts = write_scored(master, out, job.score.marker, column, thresholds, progress)
        pass_on(master, out, path)
        asked = SummariseJob(
            (out,), job.tables, job.regions, slide=path, measurements=(column,), settings=job.summarise,
            slide_settings=job.slide_settings,
        )  # fmt: skip
        rows = rows_of_slide(asked, name, out, progress, sheet)
        if pages:
            with _opened(job, master, path, progress) as slide:
                write_score(out, pages[name], own, rows, slide)
        return ScoredSlide(counts, own, tuple(rows))

    made, failed = each_slide(masters, progress, scored)
    done = Scored(made, column, thresholds, proposed, failed)
    write_tables(job.tables, done.rows, outputs, sheet, progress.say)
    return done


def _check(job: ScoreJob, masters: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return where scored cells and pages go, by name; refuse what cannot be written or done, before any work."""
    outputs = outputs_for(job.cells, masters, job.output, "scored cells")
    check_tables(job.tables, masters, job.regions, job.slide)
    if job.page is None:
        return outputs, {}
    if is_many(job.cells) and (job.page.name.endswith(PAGE) or job.page.is_file()):
        raise OutputError(f"--page {job.page}: there are several slides; give a folder")
    pages = {name: job.page / f"{name}{PAGE}" if is_many(job.cells) else job.page for name in masters}
    for path in pages.values():
        check_writable(path)
    return outputs, pages


def _check_beside(job: ScoreJob, regions: Path | None, master: Path, path: str) -> None:
    """Refuse, before anything is written, regions and a slide that cannot be used."""
    if regions is not None:
        read_regions(regions, metadata(master), lambda line: None)
    if path:
        slide, _ = open_pair(path, master, job.slide_settings)
        slide.close()


@contextlib.contextmanager
def _opened(job: ScoreJob, master: Path, path: str, progress: Progress) -> Iterator[Slide | None]:
    """Yield the slide; None, with a word, where it is not at hand."""
    if not path:
        progress.say(f"warning: {master}: its slide was not found, so the page has no pictures; give it: --slide")
        yield None
        return
    slide, _ = open_pair(path, master, job.slide_settings)
    with slide:
        yield slide
