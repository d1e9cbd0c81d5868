"""What is asked of one slide, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wsipipe.formats.exports import file_endings
from wsipipe.models.zoo import DEFAULT
from wsipipe.quality.kept import beside
from wsipipe.runs import work_of
from wsipipe.settings import (
    CellSettings,
    ClusterSettings,
    ExportSettings,
    GridSettings,
    RunSettings,
    SlideSettings,
    StainSettings,
    TissueSettings,
    TypeSettings,
)
from wsipipe.units import Box

QUALITY = "quality.npz"
"""The quality map in the folder of an unfinished run."""


@dataclass(frozen=True)
class SegmentJob:
    """What to segment, how, and where the cells go.

    Attributes
    ----------
    source : str
        Slide, picture, or tile store made by ``wsipipe tile``.
    outputs : tuple of Path
        Each ends in one of :func:`wsipipe.formats.exports.file_endings`.
    model : str
        Name of a shipped model, or a checkpoint.
    bounds : Box, optional
        Only cells with their centroid in this box of base pixels.
    overlay : Path, optional
        PNG of the outlines over the slide.
    overwrite : bool
        Replace the results of another slide, too.
    copy : str
        A copy of *source* that is read in its place.
    """

    source: str
    outputs: tuple[Path, ...]
    model: str = DEFAULT
    bounds: Box | None = None
    overlay: Path | None = None
    force: bool = False
    slide: SlideSettings = field(default_factory=SlideSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)
    grid: GridSettings = field(default_factory=GridSettings)
    cells: CellSettings = field(default_factory=CellSettings)
    run: RunSettings = field(default_factory=RunSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    stain: StainSettings = field(default_factory=StainSettings)
    types: TypeSettings = field(default_factory=TypeSettings)
    overwrite: bool = False
    copy: str = ""

    @property
    def read_from(self) -> str:
        """What is opened: the slide, or a copy of it that is nearer."""
        return self.copy or self.source

    @property
    def wanted(self) -> tuple[Path, ...]:
        """Every file that the user asked for."""
        return (*self.outputs, *([self.overlay] if self.overlay else []))

    @property
    def work(self) -> Path:
        """Folder of the unfinished run, beside the first output."""
        return work_of(self.outputs[0])

    @property
    def record(self) -> Path:
        """The run record, beside the first output."""
        return self.outputs[0].parent / f"{self.stem}.run.json"

    @property
    def quality_map(self) -> Path:
        """Where the map of what is wrong with the slide is kept, once a run has made it."""
        return beside(self.outputs[0].with_name(self.stem))

    @property
    def kept_quality(self) -> tuple[Path, ...]:
        """Where it may be: beside the results, or with an unfinished run."""
        return (self.quality_map, *sorted(self.work.glob(f"*/{QUALITY}")))

    @property
    def stem(self) -> str:
        """Name of the first output without its ending."""
        return stem(self.outputs[0])


def stem(output: Path) -> str:
    """Return the name of an output without its ending."""
    return next((output.name.removesuffix(s) for s in file_endings() if output.name.endswith(s)), output.name)


STAGES = {
    "prepare": ("prepare",),
    "decode": ("decode",),
    "model": ("network",),
    "cells": ("scratch", "blend", "cells", "polygons", "measure"),
    "write": ("write",),
}
"""What a run spends its time on, and the measured stages that belong to it."""

ADVICE = {
    "prepare": "the slide is small or slow to open; many slides in one command share the start",
    "decode": "--stage DIR copies slides to a fast disk ahead, --backend cucim decodes faster",
    "model": "a GPU (--device cuda, --devices cuda:0,cuda:1) or a smaller model makes it faster",
    "cells": "more --workers make it faster",
    "write": "fewer outputs, --decimals 1 or a faster disk make it faster",
}


def advice(stage: str) -> str:
    """Return that *stage* of a run takes longest, and what to change."""
    return f"bottleneck: {stage}; {ADVICE[stage]}" if stage in ADVICE else f"bottleneck: {stage}"


@dataclass(frozen=True)
class SegmentResult:
    """What a run found and how long it took.

    Attributes
    ----------
    seconds : mapping of stage to seconds
        Summed over workers.
    bad_share : float
        Share of the analysed pixels that could not be read.
    fresh : bool
        False when the outputs were there already, made by the same slide, model, settings and version.
    lanes : tuple of int
        Blocks that were predicted, and blocks whose cells were made, at a time.
    """

    cells: int
    tissue_mm2: float
    wall: float
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    bad_boxes: int = 0
    bad_share: float = 0.0
    fresh: bool = True
    lanes: tuple[int, int] = (1, 1)

    @property
    def density(self) -> float:
        """Cells per mm² of analysed tissue."""
        return self.cells / self.tissue_mm2 if self.tissue_mm2 else 0.0

    @property
    def load(self) -> dict[str, float]:
        """Seconds that each of :data:`STAGES` took, with as many lanes at work on it as there were."""
        forwarding, making = self.lanes
        lanes = {"decode": forwarding, "model": forwarding, "cells": making}
        spent = {name: sum(self.seconds.get(part, 0.0) for part in parts) for name, parts in STAGES.items()}
        return {name: seconds / max(1, lanes.get(name, 1)) for name, seconds in spent.items()}

    @property
    def bottleneck(self) -> str:
        """What took longest: prepare, decode, model, cells or write."""
        load = self.load
        return max(load, key=lambda name: load[name]) if any(load.values()) else "none"
