"""The story of `wsipipe report`: results in, pages to look at out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsipipe.analysis.scored import suggested_of
from wsipipe.analysis.summary import Row
from wsipipe.artifacts import check_writable
from wsipipe.errors import SettingsError, SlideError, StoreError
from wsipipe.formats.parquet import MASTER
from wsipipe.pipelines.summarise import SummariseJob, rows_of_slide
from wsipipe.quality.kept import beside, keep, map_of
from wsipipe.quality.map import QualityMap
from wsipipe.report import (
    FAILED,
    Entry,
    Facts,
    is_current,
    joined,
    label,
    link,
    regions_mark,
    small_charts,
    small_picture,
    told_of,
    write_index,
    write_report,
)
from wsipipe.runs import claims
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.found_before import open_pair, record_of, slide_of, tissue_again
from wsipipe.segmentation.no_cells import warn_of_none
from wsipipe.segmentation.results import file_for
from wsipipe.settings import SlideSettings
from wsipipe.slide import Slide
from wsipipe.tissue import Tissue

ENDING = ".report.html"
INDEX = "report.html"


@dataclass(frozen=True)
class ReportJob:
    """What to report on.

    Attributes
    ----------
    source : Path
        Cells as Parquet, or a folder of such files (and of a batch's ``report.json``).
    out : Path, optional
        The page; by default ``NAME.report.html`` beside the cells, ``report.html`` in a folder.
    slide : str
        The slide; by default the one that the run record names.
    title : str
        Heading in place of the name of the slide's file.
    force : bool
        Make pages again that are there and up to date.
    quality : bool
        Map what is wrong with each slide, which reads all of it.
    regions : Path, optional
        GeoJSON of one slide's annotations (cores, hot spots, ...), or a folder with ``NAME.geojson`` for each slide.
    """

    source: Path
    out: Path | None = None
    slide: str = ""
    title: str = ""
    force: bool = False
    quality: bool = False
    regions: Path | None = None
    settings: SlideSettings = field(default_factory=SlideSettings)


@claims(lambda job: (job.out or (job.source / INDEX if job.source.is_dir() else page_beside(job.source)),))
def run_report(job: ReportJob, progress: Progress) -> list[Path]:
    """Write the pages and return their paths, that of the batch last.

    Raises
    ------
    StoreError
        When *source* is not a cells file of wsipipe.
    SettingsError
        When there is nothing to report on, or the slide given is another.
    SlideError, OutputError
    """
    if not job.source.is_dir():
        out = job.out or page_beside(job.source)
        check_writable(out)
        _report_slide(job, job.source, out, progress)
        return [out]
    if job.regions is not None and not job.regions.is_dir():
        raise SettingsError(
            f"--regions {job.regions} holds the regions of one slide, and {job.source} is a folder of results; give a "
            "folder with NAME.geojson for each"
        )
    if job.slide:
        raise SettingsError(f"--slide {job.slide} goes with one cells file; {job.source} is a folder of results")
    return _report_folder(job, progress)


def report_run(
    master: Path, out: Path, record: Mapping[str, Any], slide: Slide | None, tissue: Tissue | None, title: str = ""
) -> None:
    """Write the page of a run that has just ended, whose slide and tissue are at hand."""
    write_report(master, out, Facts.of(master, record, title), slide, tissue)


def page_beside(master: Path) -> Path:
    """Return the path of the page of a master file."""
    return master.parent / f"{master.name.removesuffix(MASTER)}{ENDING}"


def _report_slide(job: ReportJob, master: Path, out: Path, progress: Progress) -> Entry:
    """Write the page of one slide, and return its entry for the page of the batch."""
    record, many = record_of(master), job.source.is_dir()
    facts = Facts.of(master, record, "" if many else job.title)
    warn_of_none(master, facts.about, progress)
    path = job.slide or slide_of(master, record)
    with contextlib.ExitStack() as stack:
        slide = stack.enter_context(_open(path, job, master, progress)) if path else None
        if path is None:
            progress.say(f"warning: {master}: its slide was not found, so its report has no pictures; give it: --slide")
        regions = _regions(job, master, path or "", progress)
        if job.force or not many or not is_current(out, facts, slide, job.quality, regions_mark(regions)):
            tissue = tissue_again(slide, path, master, facts.about) if slide is not None and path else None
            quality = _quality(job, master, slide, facts)
            write_report(master, out, facts, slide, tissue, quality, regions, suggested_of(master, facts.about))
        picture = small_picture(facts, slide) if slide is not None and many else None
    small = small_charts(master, facts) if many else None
    return Entry(_name(job, master, facts.title), facts=facts, picture=picture, small=small)


def _regions(job: ReportJob, master: Path, path: str, progress: Progress) -> list[Row]:
    """Return the numbers of the regions of a slide, none where nobody asks or it has none."""
    name = master.relative_to(job.source).as_posix().removesuffix(MASTER) if job.source.is_dir() else master.stem
    regions = file_for(job.regions, name)
    if regions is None:
        return []
    asked = SummariseJob((master,), (), regions, slide=path, slide_settings=job.settings)
    return rows_of_slide(asked, name, master, progress, None)


def _quality(job: ReportJob, master: Path, slide: Slide | None, facts: Facts) -> QualityMap | None:
    """Return the map of what is wrong with a slide, if it is asked for."""
    if not job.quality or slide is None:
        return None
    mpp = facts.about["mpp"]
    found = map_of(slide, (float(mpp[0]), float(mpp[1])), [beside(master)])
    keep(beside(master), found)
    return found


def _name(job: ReportJob, master: Path, slide: str) -> str:
    return label(str(master.relative_to(job.source)).removesuffix(MASTER), slide) if job.source.is_dir() else slide


def _open(path: str, job: ReportJob, master: Path, progress: Progress) -> Slide:
    slide, warnings = open_pair(path, master, job.settings)
    for warning in warnings:
        progress.say(f"warning: {warning}")
    return slide


def _report_folder(job: ReportJob, progress: Progress) -> list[Path]:
    """Write a page for each master file in a folder and below, and one for all of them."""
    masters = sorted(p for p in job.source.rglob(f"*{MASTER}") if not _hidden(p.relative_to(job.source)))
    told = told_of(job.source)
    if not masters and not told:
        raise SettingsError(
            f"{job.source} holds no cells (*{MASTER}); expected a folder that `wsipipe segment` wrote to"
        )
    index = job.out or job.source / INDEX
    check_writable(index)
    progress.start("reports", len(masters))
    entries, pages = [], []
    for master in masters:
        try:
            entry = _report_slide(job, master, page_beside(master), progress)
        except (StoreError, SlideError, SettingsError) as error:
            progress.say(f"warning: {error}")
            entries.append(Entry(_name(job, master, master.name), FAILED, str(error)))
        else:
            pages.append(page_beside(master))
            entries.append(dataclasses.replace(entry, link=link(pages[-1], index)))
        progress.advance("reports")
    write_index(index, job.title or job.source.resolve().name, joined(entries, told))
    return [*pages, index]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
