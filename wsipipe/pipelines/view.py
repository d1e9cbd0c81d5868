"""The story of `wsipipe view`: open the slide and its cells, serve them on this machine, until interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wsipipe.pipelines.shown import open_pair
from wsipipe.schedule.progress import Progress
from wsipipe.settings import SlideSettings
from wsipipe.view.answers import Shown
from wsipipe.view.index import CellIndex
from wsipipe.view.server import listen, new_token, serve


@dataclass(frozen=True)
class ViewJob:
    """What to look at.

    Attributes
    ----------
    slide : str
        Slide, or tile store whose slide is still there.
    cells : Path, optional
        Master file.
    port : int
        0 takes a free one.
    at : (float, float), optional
        Position to begin at, in base pixels.
    """

    slide: str
    cells: Path | None = None
    port: int = 0
    at: tuple[float, float] | None = None
    settings: SlideSettings = field(default_factory=SlideSettings)


def run_view(job: ViewJob, progress: Progress, started: Callable[[str], None]) -> None:
    """Serve until interrupted; *started* hears the address to open.

    Raises
    ------
    SettingsError
        When the cells are those of a slide of another size.
    SlideError, StoreError, MissingDependency, OutputError
    """
    slide, warnings = open_pair(job.slide, job.cells, job.settings)
    with slide:
        for warning in warnings:
            progress.say(f"warning: {warning}")
        index = CellIndex(job.cells) if job.cells is not None else None
        name = os.path.basename(job.slide.rstrip("/"))
        position = f"#x={job.at[0]:g}&y={job.at[1]:g}&s=1" if job.at else ""
        with listen(job.port) as listener:
            shown = Shown(slide, name, index, tuple(warnings))
            serve(shown, listener, new_token(), lambda address: started(address + position))
