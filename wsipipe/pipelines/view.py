"""The story of `wsipipe view`: open the slide and its cells, serve them on this machine, until interrupted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wsipipe.analysis.regions import read_regions
from wsipipe.formats.colours import class_colours
from wsipipe.quality.kept import beside, map_of
from wsipipe.quality.map import COLOURS, FAULTS
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.found_before import open_pair
from wsipipe.segmentation.stains import stains_of
from wsipipe.settings import SlideSettings, StainSettings
from wsipipe.slide import Slide, require_mpp
from wsipipe.slide.overview import read_scaled
from wsipipe.stain.unmix import StainVectors
from wsipipe.view.answers import Shown
from wsipipe.view.areas import Area
from wsipipe.view.changing import ChangingIndex
from wsipipe.view.editing import Editing
from wsipipe.view.pair import Pair
from wsipipe.view.server import listen, new_token, serve

OVERVIEW_PX = 4096
"""Longest side of the picture that stains are estimated from."""


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
    areas : tuple of Path
        GeoJSON of annotations that are shown, too.
    quality : bool
        Map what is wrong with the slide, which reads all of it.
    beside : Path, optional
        Another master file of the slide, shown beside *cells*.
    """

    slide: str
    cells: Path | None = None
    port: int = 0
    at: tuple[float, float] | None = None
    areas: tuple[Path, ...] = ()
    quality: bool = False
    beside: Path | None = None
    settings: SlideSettings = field(default_factory=SlideSettings)
    stain: StainSettings = field(default_factory=StainSettings)


def run_view(job: ViewJob, progress: Progress, started: Callable[[str], None]) -> None:
    """Serve until interrupted; *started* hears the address to open.

    Raises
    ------
    SettingsError
        When the cells are those of a slide of another size.
    SlideError, StoreError, MissingDependency, OutputError
    """
    position = f"#x={job.at[0]:g}&y={job.at[1]:g}&s=1" if job.at else ""
    with contextlib.ExitStack() as stack:
        shown = _shown(job, job.cells, stack, progress)
        other = _shown(job, job.beside, stack, progress, shown.areas) if job.beside is not None else None
        listener = stack.enter_context(listen(job.port))
        serve(
            Pair(shown, other) if other else shown, listener, new_token(), lambda address: started(address + position)
        )


def _shown(
    job: ViewJob,
    cells: Path | None,
    stack: contextlib.ExitStack,
    progress: Progress,
    areas: tuple[Area, ...] | None = None,
) -> Shown:
    """Return the slide with *cells*, open until *stack* ends; *areas* where they are known already."""
    slide, warnings = open_pair(job.slide, cells, job.settings)
    stack.enter_context(slide)
    for warning in warnings:
        progress.say(f"warning: {warning}")
    index, editing = None, None
    if cells is not None:
        index = ChangingIndex(cells)
        editing = Editing(index, cells)
        if editing.problem:
            progress.say(f"warning: {editing.problem}")
    name = os.path.basename(job.slide.rstrip("/"))
    if job.beside is not None and cells is not None:
        name = f"{cells.name} on {name}"
    found = _areas(job, slide, progress) if areas is None else areas
    return Shown(slide, name, index, tuple(warnings), found, _vectors(job, slide), editing)


def _vectors(job: ViewJob, slide: Slide) -> StainVectors | None:
    """Return the stains that were asked for; None: those of the cells, if there are any."""
    asked = job.stain.stain_vectors
    if asked == "auto":
        return None
    scale = max(1.0, max(slide.info.size) / OVERVIEW_PX)
    size = max(1, round(slide.info.size[0] / scale)), max(1, round(slide.info.size[1] / scale))
    whole = (0, 0, *slide.info.size)
    return stains_of(asked, lambda: read_scaled(slide, whole, (scale, scale), size).reshape(-1, 3))[0]


def _areas(job: ViewJob, slide: Slide, progress: Progress) -> tuple[Area, ...]:
    """Return the annotations to show, and what is wrong with the slide."""
    about, found = {"size": slide.info.size, "bounds": slide.info.bounds}, []
    for path in job.areas:
        regions = read_regions(path, about, progress.say)
        kinds = [kind or name for kind, name in zip(regions["classification"], regions["name"])]
        stated = {kind: rgb for kind, rgb in zip(kinds, regions["colour"]) if rgb}
        colours = class_colours({kind: stated.get(kind) for kind in kinds})
        found += [Area(shape, kind, colours[kind]) for shape, kind in zip(regions.geometry, kinds)]
    if job.quality:
        progress.say("mapping the quality of the slide")
        kept = [beside(job.cells)] if job.cells else []
        quality = map_of(slide, require_mpp(slide.info, job.settings), kept)
        for line in quality.warnings:
            progress.say(f"warning: {line}")
        found += [Area(s, kind.label.capitalize(), COLOURS[kind]) for kind in FAULTS for s in quality.areas(kind)]
    return tuple(found)
