"""Outputs claimed for as long as a command works on them."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from wsipipe.artifacts import remove_leftovers
from wsipipe.runs.lease import Lease, acquire

Job = TypeVar("Job")
P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def claimed(*outputs: Path | None) -> Iterator[list[Lease]]:
    """Hold *outputs* for the block and yield their leases; None stands for an output that was not asked for.

    What killed processes have left beside them goes. When the block fails, so do the folders that were made for them
    and are empty.

    Raises
    ------
    OutputBusy
        When another process works on one of them.
    OutputError
        When nothing can be written there.
    """
    paths = sorted({Path(os.path.realpath(path)) for path in outputs if path is not None})
    missing = {folder for path in paths for folder in path.parents if not folder.exists()}
    with contextlib.ExitStack() as stack:
        stack.push(lambda kind, *_: _remove_empty(missing) if kind else None)
        leases = [stack.enter_context(acquire(path)) for path in paths]
        for path in paths:
            remove_leftovers(path)
        yield leases


def claims(
    outputs: Callable[[Any], Iterable[Path | None]],
) -> Callable[[Callable[Concatenate[Job, P], R]], Callable[Concatenate[Job, P], R]]:
    """Return a decorator for a story whose first argument is its job: it holds the job's *outputs* while it runs."""

    def decorate(story: Callable[Concatenate[Job, P], R]) -> Callable[Concatenate[Job, P], R]:
        @functools.wraps(story)
        def run(job: Job, /, *args: P.args, **kwargs: P.kwargs) -> R:
            with claimed(*outputs(job)):
                return story(job, *args, **kwargs)

        return run

    return decorate


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
