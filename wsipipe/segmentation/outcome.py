"""What became of the slides of a batch: records of failures, ``report.json``, the closing table."""

from __future__ import annotations

import socket
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from wsipipe._version import __version__
from wsipipe.artifacts import read_json, write_json
from wsipipe.errors import ModelError, SettingsError, SlideChanged, SlideError, StoreError, WsipipeError
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import SegmentJob, SegmentResult
from wsipipe.segmentation.request import is_stale, slide_file
from wsipipe.segmentation.slides import Entry

DONE, FAILED, SKIPPED, PENDING = "done", "failed", "skipped", "pending"
LASTING = (SlideError, SettingsError, StoreError, ModelError)
"""Failures that would come again; others (a full disk, lost workers) are tried again by the next run."""
WRITE_SECONDS = 10.0
"""How often the report of an unfinished batch is written."""


class Attempt:
    """Keeps any error of its block (not an interrupt), so that one slide does not stop the others.

    Attributes
    ----------
    error : Exception or None
    """

    error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None

    @property
    def reason(self) -> str:
        """The error in one line; one that nobody foresaw is called so."""
        text = " ".join(str(self.error).split())
        if isinstance(self.error, (WsipipeError, OSError, MemoryError)):
            return text or type(self.error).__name__
        return f"unexpected {type(self.error).__name__}: {text}"


@dataclass(frozen=True)
class Outcome:
    """What became of one slide.

    Attributes
    ----------
    status : str
        done, failed, skipped (up to date, or in the hands of another process) or pending.
    reason : str
        Why it failed or was skipped.
    """

    slide: str
    name: str
    status: str = PENDING
    reason: str = ""
    model: str = ""
    outputs: tuple[str, ...] = ()
    cells: int | None = None
    tissue_mm2: float | None = None
    cells_per_mm2: float | None = None
    bad_share: float = 0.0
    seconds: float = 0.0
    bottleneck: str = ""
    warnings: tuple[str, ...] = ()

    @classmethod
    def done(
        cls, entry: Entry, job: SegmentJob, result: SegmentResult, status: str = DONE, reason: str = ""
    ) -> Outcome:
        """Return the outcome of a slide with results."""
        return cls(
            entry.source,
            entry.name,
            status,
            reason,
            job.model,
            tuple(str(path) for path in job.wanted),
            result.cells,
            round(result.tissue_mm2, 6),
            round(result.density, 2),
            round(result.bad_share, 6),
            round(result.wall, 2),
            result.bottleneck if result.fresh else "",
            result.warnings,
        )

    @classmethod
    def kept(cls, entry: Entry, job: SegmentJob, result: SegmentResult) -> Outcome:
        """Return the outcome of a slide that is up to date."""
        return cls.done(entry, job, result, SKIPPED, "up to date")

    @classmethod
    def elsewhere(cls, entry: Entry, job: SegmentJob, error: Exception) -> Outcome:
        """Return the outcome of a slide that another process works on."""
        return cls(entry.source, entry.name, SKIPPED, str(error), job.model)


# --- failures ---------------------------------------------------------------------------------------------------------


def failure_file(job: SegmentJob) -> Path:
    """Return where the failure of a slide is recorded."""
    return job.record.with_name(f"{job.stem}.failed.json")


def failed_before(job: SegmentJob, request: str) -> Outcome | None:
    """Return the failure of an earlier run that would come again: same slide, model, settings and version."""
    record = read_json(failure_file(job))
    if not record.get("lasting") or (record.get("request"), record.get("version")) != (request, __version__):
        return None
    if is_stale(record, job.source):
        return None
    reason = f"{record.get('reason')} (failed {record.get('failed')}; --retry-failed tries again)"
    return Outcome(job.source, str(record.get("name", "")), FAILED, reason, job.model)


def record_failure(entry: Entry, job: SegmentJob, attempt: Attempt, request: str) -> Outcome:
    """Write the record of a failure, as far as that is possible, and return the outcome."""
    error = attempt.error
    known = isinstance(error, WsipipeError)
    record = {
        "slide": entry.source,
        "slide_file": slide_file(entry.source),
        "name": entry.name,
        "request": request,
        "reason": attempt.reason,
        "kind": type(error).__name__,
        "lasting": bool(request) and _would_come_again(error),
        "traceback": "" if known else "".join(traceback.format_exception(error)),
        "failed": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "version": __version__,
    }
    with Attempt():
        path = failure_file(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
    return Outcome(entry.source, entry.name, FAILED, attempt.reason, job.model)


def _would_come_again(error: Exception | None) -> bool:
    if isinstance(error, SlideChanged):
        return False
    return isinstance(error, LASTING) or not isinstance(error, (OSError, MemoryError))


def forget_failure(job: SegmentJob) -> None:
    """Remove the record of a failure that has been overcome."""
    failure_file(job).unlink(missing_ok=True)


# --- the report -------------------------------------------------------------------------------------------------------


class Report:
    """The outcomes of a batch, told to *progress* as they come and kept in ``report.json``.

    Parameters
    ----------
    path : Path
    entries : sequence of Entry
    progress : Progress
    """

    def __init__(self, path: Path, entries: Sequence[Entry], progress: Progress) -> None:
        self.path, self.progress = path, progress
        self.outcomes = [Outcome(entry.source, entry.name) for entry in entries]
        self._began, self._written = time.time(), time.monotonic()
        progress.start("slides", len(self.outcomes))

    def add(self, index: int, outcome: Outcome) -> None:
        """Note what became of a slide; a second word replaces the first."""
        before, self.outcomes[index] = self.outcomes[index], outcome
        if before == outcome:
            return
        if before.status == PENDING:
            self.progress.advance("slides")
        done = sum(o.status != PENDING for o in self.outcomes)
        self.progress.say(f"[{done}/{len(self.outcomes)}] {outcome.name}: {_in_words(outcome)}")
        if time.monotonic() - self._written > WRITE_SECONDS:
            self._written = time.monotonic()
            self.write()

    @property
    def counts(self) -> dict[str, int]:
        """How many slides have each status."""
        return dict.fromkeys((DONE, FAILED, SKIPPED), 0) | Counter(o.status for o in self.outcomes)

    @property
    def failed(self) -> bool:
        """Whether any slide failed."""
        return self.counts[FAILED] > 0

    def write(self) -> None:
        """Write ``report.json``."""
        began = time.localtime(self._began)
        write_json(
            self.path,
            {
                "format": 1,
                "version": __version__,
                "host": socket.gethostname(),
                "began": time.strftime("%Y-%m-%dT%H:%M:%S%z", began),
                "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "seconds": round(time.time() - self._began, 2),
                "counts": self.counts,
                "slides": [asdict(outcome) for outcome in self.outcomes],
            },
        )


def _in_words(outcome: Outcome) -> str:
    if outcome.status == DONE:
        return f"{outcome.cells:,} cells, {outcome.seconds:.1f} s"
    return f"{outcome.status}: {outcome.reason}"
