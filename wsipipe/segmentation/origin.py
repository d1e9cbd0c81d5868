"""Which slide a result is of: recorded beside it, asked before the result is kept or replaced."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wsipipe._version import __version__
from wsipipe.artifacts import read_json, write_json
from wsipipe.errors import OutputError, StoreError
from wsipipe.formats.parquet import metadata
from wsipipe.segmentation.job import SegmentJob, stem
from wsipipe.segmentation.request import slide_file, slide_fingerprint
from wsipipe.units import Box


def record_of(output: Path) -> Path:
    """Return the run record of a tile store or of features; cells have theirs under the name without ending."""
    return output.with_name(f"{output.name}.run.json")


def write_record(output: Path, source: str, fingerprint: str, bad: Sequence[Box] = ()) -> None:
    """Write the run record of a tile store or of features."""
    record = {
        "slide": source if "://" in source else os.path.abspath(source),
        "slide_fingerprint": fingerprint,
        "slide_file": slide_file(source),
        "bad_boxes": len(bad),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "version": __version__,
    }
    write_json(record_of(output), record)


def refuse_another(job: SegmentJob) -> None:
    """Raise OutputError when an output holds the cells of another slide, unless these may be replaced."""
    if job.overwrite:
        return
    for path, made in _made(job):
        if not _is_same_path(str(made.get("slide") or ""), job.source):
            refuse_other(path, made, job.source, slide_fingerprint(job.source))


def _made(job: SegmentJob) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the files that would be replaced, with what is known of how they were made."""
    for path in job.outputs:
        record = read_json(path.parent / f"{stem(path)}.run.json")
        there = [path.parent / str(name) for name in record.get("outputs") or ()]
        if any(file.exists() for file in there):
            yield path, record
        elif path.suffix == ".parquet" and path.exists():
            try:
                yield path, {"slide_fingerprint": metadata(path).get("fingerprint")}
            except StoreError:  # not of wsipipe
                continue


def refuse_other(output: Path, made: dict[str, Any], source: str, fingerprint: str, overwrite: bool = False) -> None:
    """Raise OutputError when *output* was *made* from another slide than *source*, which has this *fingerprint*."""
    known, other = made.get("slide_fingerprint"), str(made.get("slide") or "")
    if overwrite or not known or known == fingerprint or _is_same_path(other, source):
        return
    raise OutputError(
        f"{output} holds the result of {other or 'another slide'}, not of {source}: give another name with -o, or "
        "--overwrite to replace it"
    )


def _is_same_path(one: str, other: str) -> bool:
    return bool(one) and (one == other or os.path.realpath(one) == os.path.realpath(other))
