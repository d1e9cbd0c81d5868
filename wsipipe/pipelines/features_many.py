"""The story of ``wsipipe features`` over many slides: nothing done twice, no slide stops another, one report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wsipipe._version import __version__
from wsipipe.artifacts import check_writable, write_json
from wsipipe.errors import OutputBusy, SettingsError
from wsipipe.pipelines.features import FeaturesJob, run_features
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.outcome import DONE, FAILED, SKIPPED, Attempt
from wsipipe.segmentation.results import list_results
from wsipipe.segmentation.slides import list_slides

REPORT = "report.json"


@dataclass(frozen=True)
class Made:
    """What became of one slide: done, failed or skipped, and why; tiles, features of each, areas not read, seconds."""

    slide: str
    output: str
    status: str
    reason: str = ""
    tiles: int = 0
    width: int = 0
    bad: int = 0
    seconds: float = 0.0


def run_features_many(
    sources: Sequence[str], out: Path, like: FeaturesJob, progress: Progress, suffix: str = ".h5"
) -> list[Made]:
    """Write the features of every slide that *sources* name to *out*, as *like* says; the same call goes on.

    Parameters
    ----------
    sources : sequence of str
        Slides, folders, patterns, CSV tables; see :func:`wsipipe.segmentation.slides.list_slides`.
    out : Path
        Folder of the features, a file a slide, and of ``report.json``.
    suffix : {'.h5', '.zarr'}

    Where *like* names a folder of cells, a slide's are those of its name there, as a batch of ``segment`` names them.

    Raises
    ------
    SlideNotFound, SettingsError, OutputError
        Before any slide is begun.
    """
    if out.suffix in (".h5", ".zarr"):
        raise SettingsError(f"-o {out}: several slides go into a folder, a file each; expected the name of a folder")
    entries = list_slides(sources)
    cells = list_results([like.cells]) if like.cells else None
    if like.cells and not like.cells.is_dir():
        raise SettingsError(f"--cells {like.cells} goes with one slide, and there are several; give a folder")
    check_writable(out / REPORT)
    done: list[Made] = []
    for number, entry in enumerate(entries, 1):
        output = out / f"{entry.name}{suffix}"
        progress.say(f"{number} of {len(entries)}: {entry.source}")
        job = replace(like, source=entry.source, output=output)
        done.append(_one(job, progress, entry.name, cells))
        _report(out, done, len(entries))
    return done


def _one(job: FeaturesJob, progress: Progress, name: str, cells: Mapping[str, Path] | None) -> Made:
    """Return what became of the slide of *job*; only an interrupt ends it otherwise."""
    began = time.monotonic()
    with Attempt() as attempt:
        if cells is not None:
            if name not in cells:
                raise SettingsError(f"--cells {job.cells} has no {name}.parquet; segment the slide first")
            job = replace(job, cells=cells[name])
        job.output.parent.mkdir(parents=True, exist_ok=True)
        found = run_features(job, progress)
        seconds = round(time.monotonic() - began, 1)
        status, reason = (DONE, "") if found.fresh else (SKIPPED, "up to date")
        return Made(job.source, str(job.output), status, reason, found.tiles, found.width, found.bad, seconds)
    status = SKIPPED if isinstance(attempt.error, OutputBusy) else FAILED
    progress.say(f"{job.source}: {attempt.reason}")
    return Made(job.source, str(job.output), status, attempt.reason, seconds=round(time.monotonic() - began, 1))


def _report(out: Path, done: Sequence[Made], total: int) -> None:
    counts = {status: sum(one.status == status for one in done) for status in (DONE, SKIPPED, FAILED)}
    about = {"version": __version__, "counts": counts | {"pending": total - len(done)}}
    write_json(out / REPORT, about | {"slides": [asdict(one) for one in done]})
