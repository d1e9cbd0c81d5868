"""The story of ``wsipipe measure`` for many slides: each has its cells and its slide, none stops the others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from wsipipe._version import __version__
from wsipipe.artifacts import check_writable, digest, make_parents
from wsipipe.errors import OutputBusy, SettingsError
from wsipipe.formats.imported import SUFFIXES
from wsipipe.formats.parquet import MASTER
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.corrected import corrections_of
from wsipipe.segmentation.found_before import record_of, slide_of
from wsipipe.segmentation.measuring import MeasureJob, run_measure
from wsipipe.segmentation.outcome import DONE, FAILED, SKIPPED, Attempt, Outcome, Report
from wsipipe.segmentation.request import content_of
from wsipipe.segmentation.results import list_results, outputs_for
from wsipipe.segmentation.slides import Entry, is_batch, list_slides
from wsipipe.settings import determining
from wsipipe.slide import fingerprint, stamp


@dataclass(frozen=True)
class ManyJob:
    """Whose cells to measure, and where to.

    Attributes
    ----------
    cells : tuple of Path
        Master files, GeoJSON, or folders of them.
    slides : str
        One slide; or a folder, pattern, table or QuPath project, in which each has the name of its cells. By default
        those that the run records name.
    output : Path
        A master file; of several a folder, with ``report.json``.
    like : MeasureJob
        The settings.
    force : bool
        Measure again what is up to date.
    """

    cells: tuple[Path, ...]
    slides: str
    output: Path
    like: MeasureJob
    force: bool = False


def cells_files(sources: Sequence[Path]) -> dict[str, Path]:
    """Return the files of cells among *sources* and in the folders there, by name, sorted by it.

    Of a folder that holds master files those are taken, else what QuPath exported.

    Raises
    ------
    SettingsError
        When a folder holds none, or two have one name.
    """
    found: list[tuple[str, Path]] = []
    for source in sources:
        drawn = sorted(p for end in SUFFIXES[:2] for p in source.rglob(f"*{end}")) if source.is_dir() else []
        if source.is_dir() and drawn and not any(source.rglob(f"*{MASTER}")):
            found += [(_bare(p.relative_to(source).as_posix()), p) for p in drawn]
        elif source.is_dir():
            found += list_results([source]).items()
        else:
            found.append((_bare(source.name), source))
    twice = [name for name, count in Counter(name for name, _ in found).items() if count > 1]
    if twice:
        raise SettingsError(f"two cells files are called {twice[0]}; give the folder above, which tells them apart")
    return dict(sorted(found))


def slide_for(cells: Path, name: str, slides: str) -> str:
    """Return the slide of the file *cells*, whose name among others is *name*.

    Raises
    ------
    SettingsError
        When there is none.
    """
    if slides and not is_batch([slides]):
        return slides
    if slides:
        return _named(name, slides)
    path = slide_of(cells, record_of(cells))
    if path is None:
        raise SettingsError(
            f"{cells}: its slide was not found (no run record beside it, or the slide is gone); give it with --slide"
        )
    return path


def measure_many(job: ManyJob, progress: Progress) -> Report:
    """Measure the cells of every slide, none of which stops the others; what is up to date stays.

    Raises
    ------
    WsipipeError
        Nothing can be done at all: no cells, no slides, no place to write.
    """
    files = cells_files(job.cells)
    if job.slides and not is_batch([job.slides]) and len(files) > 1:
        raise SettingsError(f"--slide {job.slides} is one slide, and there are {len(files)} cells files; give a folder")
    if job.slides and is_batch([job.slides]):
        list_slides([job.slides])  # refused at once where there is none
    outputs = outputs_for(job.cells, files, job.output, "measured cells")
    path = job.output / "report.json"
    make_parents(path)
    check_writable(path)
    report = Report(path, [Entry(str(cells), name) for name, cells in files.items()], progress)
    try:
        for index, (name, cells) in enumerate(files.items()):
            report.add(index, _one(job, name, cells, outputs[name], progress))
    finally:
        report.write()
    return report


def _one(job: ManyJob, name: str, cells: Path, out: Path, progress: Progress) -> Outcome:
    """Return what became of one slide."""
    begun, slide, told = time.monotonic(), "", _Heard(progress, name)
    with Attempt() as attempt:
        slide = slide_for(cells, name, job.slides)
        own = replace(job.like, cells=cells, slide=slide, output=out)
        own = replace(own, request=_request(own))
        known = Outcome(slide, name, DONE, outputs=(str(out),))
        if not job.force and (count := _finished(own)) is not None:
            return replace(known, status=SKIPPED, reason="up to date", cells=count)
        done = run_measure(own, told)
        seconds = round(time.monotonic() - begun, 2)
        return replace(known, cells=done.cells, seconds=seconds, warnings=(*told.warnings, *done.doubts))
    status = SKIPPED if isinstance(attempt.error, OutputBusy) else FAILED
    return Outcome(slide or str(cells), name, status, attempt.reason)


def _request(job: MeasureJob) -> str:
    """Return the digest of what determines the measured cells: the file, the slide, settings and version."""
    key = {
        "cells": stamp(job.cells) if job.cells.exists() else None,
        "slide": (fingerprint(job.slide), stamp(job.slide)),
        "measure": determining(job.measure),
        "settings": determining(job.slide_settings),
        "stain": content_of(job.stain.stain_vectors) or job.stain.stain_vectors,
        "corrections": content_of(str(corrections_of(job.cells, job.corrections) or "")),
        "version": __version__,
    }
    return digest(key)


def _finished(job: MeasureJob) -> int | None:
    """Return the number of cells that an equal run has measured; None where there is none, or not whole any more."""
    record = record_of(job.output)
    there = job.output.is_file() and record.get("size") == job.output.stat().st_size
    return int(record["cells"]) if there and record.get("request") == job.request else None


def _named(name: str, slides: str) -> str:
    """Return the slide called *name* among *slides*: as batches name them, or the only file of that name."""
    entries = list_slides([slides])
    exact = [entry.source for entry in entries if entry.name == name]
    last = PurePosixPath(name).name
    found = exact or [entry.source for entry in entries if PurePosixPath(entry.name).name == last]
    if len(found) != 1:
        what = f"{len(found)} slides" if found else "no slide"
        raise SettingsError(f"--slide {slides} holds {what} called {name}; expected one for each cells file")
    return found[0]


def _bare(name: str) -> str:
    """Return the name of a file of cells without its ending."""
    return next((name.removesuffix(end) for end in (MASTER, *SUFFIXES[::-1]) if name.endswith(end)), name)


class _Heard(Progress):
    """Says lines about one slide with its name in front, and keeps its warnings."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name
        self.warnings: tuple[str, ...] = ()

    def start(self, stage: str, total: int) -> None:
        """Hear that *stage* begins, with *total* steps."""
        self._progress.start(stage, total)

    def advance(self, stage: str, steps: int = 1) -> None:
        """Hear that *steps* of *stage* are done."""
        self._progress.advance(stage, steps)

    def say(self, line: str) -> None:
        """Say a line."""
        if line.startswith("warning: "):
            self.warnings += (line.removeprefix("warning: "),)
        self._progress.say(f"{self._name}: {line}")
