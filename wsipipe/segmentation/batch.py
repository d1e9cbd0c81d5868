"""The story of many slides: each is prepared while the one before it runs, and written while the next one does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from wsipipe.artifacts import check_writable, read_json
from wsipipe.errors import OutputBusy, OutputError, SettingsError, SlideError
from wsipipe.formats.exports import file_endings
from wsipipe.runs import Lease, acquire, check_free
from wsipipe.schedule.engine import Engine
from wsipipe.schedule.engines import open_engine
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.threads import Threads
from wsipipe.segmentation.job import SegmentJob, SegmentResult
from wsipipe.segmentation.outcome import Attempt, Outcome, Report, failed_before, forget_failure, record_failure
from wsipipe.segmentation.prepare import Prepared, prepare
from wsipipe.segmentation.publish import Done, publish
from wsipipe.segmentation.request import Network, check_request, finished_before, network_of, request_of
from wsipipe.segmentation.run import compute
from wsipipe.segmentation.slides import Entry, list_slides
from wsipipe.segmentation.staging import Stager
from wsipipe.settings import BatchSettings

WAIT_SECONDS = 5.0
"""Pause between two looks at slides that other processes work on."""


@dataclass(frozen=True)
class BatchJob:
    """Which slides to segment, how, and where the results go.

    Attributes
    ----------
    sources : tuple of str
        Slides, folders, patterns, CSV tables; see :func:`wsipipe.segmentation.slides.list_slides`.
    out : Path
        Folder of the results, of ``report.json`` and of each slide's run record.
    like : SegmentJob
        Model and settings of every slide.
    """

    sources: tuple[str, ...]
    out: Path
    like: SegmentJob
    settings: BatchSettings

    @property
    def endings(self) -> tuple[str, ...]:
        """Return the endings of each slide's results.

        Raises
        ------
        SettingsError
        """
        names = [name.strip().lstrip(".").lower() for name in self.settings.format.split(",") if name.strip()]
        unknown = [name for name in names if f".{name}" not in (*file_endings(), ".png")]
        if unknown or not set(names) - {"png"}:
            known = ", ".join(suffix[1:] for suffix in file_endings())
            raise SettingsError(
                f"--format {self.settings.format}: expected one or more of {known}; png adds an overlay"
            )
        return tuple(dict.fromkeys(f".{name}" for name in names))

    def entries(self) -> list[Entry]:
        """Return the slides; see :func:`~wsipipe.segmentation.slides.list_slides` for what is raised."""
        return list_slides(self.sources, self.settings.root, self.settings.recursive)

    def job(self, entry: Entry) -> SegmentJob:
        """Return the job of one slide."""
        base = self.out / entry.name
        outputs = tuple(base.with_name(base.name + ending) for ending in self.endings if ending != ".png")
        overlay = base.with_name(base.name + ".png") if ".png" in self.endings else None
        return replace(entry.job(self.like), outputs=outputs, overlay=overlay)


@dataclass(frozen=True)
class Ready:
    """A slide that may be run: what is asked, its network, and the slide once it is open."""

    job: SegmentJob
    request: str
    network: Network
    prepared: Prepared | None = None


def run_batch(batch: BatchJob, progress: Progress) -> Report:
    """Segment all slides, none of which stops the others, and return the report, also written to ``report.json``.

    Raises
    ------
    WsipipeError
        Nothing can be done at all: no slides, no model, no workers, no place to write.
    """
    entries = batch.entries()
    if batch.settings.stage and batch.like.cluster.scheduler:
        raise SettingsError("--stage copies to a disk of this machine, which the workers of --scheduler do not see")
    _ = batch.endings
    try:
        batch.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {batch.out}: {error.strerror or error}") from error
    report = Report(batch.out / "report.json", entries, progress)
    check_writable(report.path)
    with open_engine(batch.like.run, batch.like.cluster, progress.say) as engine:
        if any("model" not in entry.special for entry in entries):
            network_of(batch.like, engine)  # a model that does not load stops here
        try:
            _Run(batch, entries, engine, report, progress).all()
        finally:
            report.write()
    return report


class _Run:
    """The slides of a batch on their way: the next is prepared, one runs, the last is written."""

    def __init__(
        self, batch: BatchJob, entries: list[Entry], engine: Engine, report: Report, progress: Progress
    ) -> None:
        self.batch, self.entries, self.engine = batch, entries, engine
        self.report, self.progress, self.began = report, progress, time.time()
        self.stager: Stager | None = None
        self.looked = lru_cache(maxsize=None)(self._look)
        self.network = lru_cache(maxsize=None)(lambda model: network_of(replace(batch.like, model=model), engine))

    def all(self) -> None:
        """Do every slide; then, if asked to, those that other processes leave."""
        with ExitStack() as stack:
            settings = self.batch.settings
            if settings.stage:
                sources = [entry.source for entry in self.entries]
                room = int(settings.stage_gb * 1e9)
                stager = Stager(Path(settings.stage), room, sources, self._wanted, self.progress.say)
                self.stager = stack.enter_context(stager)
            busy = self._pass(range(len(self.entries)))
            while busy and settings.wait:
                time.sleep(WAIT_SECONDS)
                busy = self._pass(busy)

    def _pass(self, indices: Any) -> list[int]:
        """Do the slides of *indices*; return those that other processes work on."""
        busy: list[int] = []
        writing: tuple[int, Future[SegmentResult]] | None = None
        with Threads(1, "prepare") as ahead, Threads(1, "write") as behind:
            for index, future in _one_ahead(ahead, indices, self._ready):
                running = self._start(index, future, busy)
                if writing:
                    self._written(*writing)
                    writing = None
                if running:
                    writing = index, behind.submit(self._write, index, *running)
            if writing:
                self._written(*writing)
        return busy

    # --- one slide -------------------------------------------------------------------------------------------------

    def _look(self, index: int) -> Ready | SegmentResult | Outcome:
        """Return what there is to do for a slide; or its result, or its failure, when it was done before."""
        job = self.batch.job(self.entries[index])
        network = self.network(job.model)
        try:
            request = request_of(job, network)
        except SlideError as error:
            request = str(error)
        if not job.force and (earlier := finished_before(job, request, self.began)):
            return earlier
        if not (job.force or self.batch.settings.retry_failed) and (failure := failed_before(job, request)):
            return failure
        return Ready(job, request, network)

    def _wanted(self, index: int) -> bool:
        """Whether the pixels of a slide will be read."""
        with Attempt() as attempt:
            return isinstance(self.looked(index), Ready)
        return attempt.error is None

    def _ready(self, index: int) -> Ready | SegmentResult | Outcome:
        """Return what there is to do for a slide, which is open then."""
        found = self.looked(index)
        if not isinstance(found, Ready):
            return found
        check_free(found.job.outputs[0], self.batch.settings.lease_seconds)
        if not found.job.force and (earlier := finished_before(found.job, found.request, self.began)):
            return earlier  # by another process, since this one looked
        _refuse_another(found.job)
        job = replace(found.job, copy=self.stager.path(index)) if self.stager else found.job
        job.record.parent.mkdir(parents=True, exist_ok=True)
        return replace(found, job=job, prepared=prepare(job, _Named(self.progress, job), found.network))

    def _start(self, index: int, future: Future[Any], busy: list[int]) -> tuple[Ready, Prepared, Done, Lease] | None:
        """Run a slide; return what is to be written, None when there is nothing."""
        begun, entry = time.monotonic(), self.entries[index]
        with Attempt() as attempt:
            ready = future.result()
            if isinstance(ready, SegmentResult):
                self.report.add(index, Outcome.kept(entry, self.batch.job(entry), ready))
                return None
            if isinstance(ready, Outcome):
                self.report.add(index, ready)
                return None
            lease = acquire(ready.job.outputs[0], self.batch.settings.lease_seconds)
            with ExitStack() as stack:
                stack.enter_context(lease)
                if not ready.job.force and (earlier := finished_before(ready.job, ready.request, self.began)):
                    self.report.add(index, Outcome.kept(entry, ready.job, earlier))
                    return None
                prepared, done = compute(ready.job, ready.network, self.engine, self.progress, lease, ready.prepared)
                stack.pop_all()  # the writer gives the lease back
                return ready, prepared, replace(done, request=ready.request, started=begun), lease
        self._failed(index, attempt, busy)
        return None

    def _write(self, index: int, ready: Ready, prepared: Prepared, done: Done, lease: Lease) -> SegmentResult:
        """Write the results of a slide."""
        with lease:
            check_request(ready.job, ready.network, ready.request)
            result = publish(ready.job, prepared, done, self.progress)
            forget_failure(ready.job)
        if self.stager:
            self.stager.drop(index)
        return result

    def _written(self, index: int, future: Future[SegmentResult]) -> None:
        """Report a slide whose results were to be written."""
        with Attempt() as attempt:
            result = future.result()
            self.report.add(index, Outcome.done(self.entries[index], self.batch.job(self.entries[index]), result))
        self._failed(index, attempt, [])

    def _failed(self, index: int, attempt: Attempt, busy: list[int]) -> None:
        """Report a slide that went wrong, if it did."""
        if attempt.error is None:
            return
        entry, job = self.entries[index], self.batch.job(self.entries[index])
        if isinstance(attempt.error, OutputBusy):
            busy.append(index)
            self.report.add(index, Outcome.elsewhere(entry, job, attempt.error))
            return
        with Attempt() as again:
            found = self.looked(index)
            request = found.request if isinstance(found, Ready) else ""
        self.report.add(index, record_failure(entry, job, attempt, "" if again.error else request))
        if self.stager:
            self.stager.drop(index)


def _one_ahead(threads: Threads, indices: Any, function: Callable[[int], Any]) -> Iterator[tuple[int, Future[Any]]]:
    """Yield each index with the future of *function* of it, which has been begun one index earlier."""
    before: tuple[int, Future[Any]] | None = None
    for index in indices:
        future = threads.submit(function, index)
        if before:
            yield before
        before = index, future
    if before:
        yield before


def _refuse_another(job: SegmentJob) -> None:
    """Refuse to write over the results of another slide that has the same name."""
    if job.overwrite:
        return
    other = read_json(job.record).get("slide", job.source)
    if os.path.realpath(other) != os.path.realpath(job.source) and os.path.exists(other):
        raise OutputError(
            f"{job.record} belongs to {other}; give --root, so that both have names of their own, or another folder"
        )


class _Named(Progress):
    """Says lines about one slide with its name in front."""

    def __init__(self, progress: Progress, job: SegmentJob) -> None:
        self.progress, self.job = progress, job

    def say(self, line: str) -> None:
        """Say a line."""
        self.progress.say(f"{self.job.source}: {line}")
