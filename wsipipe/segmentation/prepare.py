"""Before a slide is segmented: open it, find its tissue, load the model, freeze the plan."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsipipe._version import __version__
from wsipipe.artifacts import digest
from wsipipe.cells.instances import CellRules
from wsipipe.cells.measure import MEASURES, stain_names
from wsipipe.cells.rules import CLUMP_PART_UM2, CLUMP_SHARE_UM2
from wsipipe.errors import SettingsError
from wsipipe.formats.parquet import write_part
from wsipipe.formats.table import BlankCells, cells_table
from wsipipe.geometry import Grid, grow, is_empty
from wsipipe.models.checkpoint import ModelCard, Rules
from wsipipe.plugins.levels import levels_of
from wsipipe.plugins.opening import AnyPredictor
from wsipipe.plugins.stitch import tiling
from wsipipe.raster.tiling import TileGrid, select_tiles
from wsipipe.schedule.pool import PoolEngine
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.scratch import Scratch
from wsipipe.schedule.task import Plan
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.request import Network, grid_settings, network_of, settings_of
from wsipipe.segmentation.source import Source, open_source
from wsipipe.segmentation.stains import pixels_in, stain_doubts, stains_of
from wsipipe.settings import CellSettings
from wsipipe.slide import stamp
from wsipipe.slide.protocol import SlideInfo
from wsipipe.stain import Colours, colours_of, sampled
from wsipipe.stain.unmix import HE
from wsipipe.store import StoreRaster
from wsipipe.tissue import Tissue
from wsipipe.units import Box, Pair


@dataclass(frozen=True, eq=False)
class Prepared:
    """A slide that is ready to run."""

    plan: Plan
    info: SlideInfo
    base_mpp: Pair
    tissue: Tissue
    tissue_um2: float
    network: Network
    settings: dict[str, Any]
    warnings: tuple[str, ...]
    seconds: float

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the run."""
        return self.plan.fingerprint

    @property
    def stain(self) -> str:
        """What the network saw: the slide's colours ``as-is``, or ``normalised``."""
        return "normalised" if self.plan.stain else "as-is"

    @property
    def predictor(self) -> AnyPredictor | None:
        """The network, where this process runs it."""
        return self.network.predictor

    def empty_part(self, scratch: Scratch) -> Path:
        """Write and return a part without cells, for a slide without tissue."""
        path = scratch.part(0)
        measures = {name: np.zeros(0) for name in (*MEASURES, *stain_names(self.plan.vectors))}
        none = np.zeros(0, np.object_)
        nuclei = none if self.plan.expand_um else None
        table = cells_table(
            BlankCells(0, len(self.plan.classes)),
            none,
            measures,
            fingerprint=self.plan.slide_fingerprint,
            classes=self.plan.classes,
            nuclei=nuclei,
        )
        write_part(table, path)
        return path


def prepare(job: SegmentJob, progress: Progress, network: Network | None = None, batch: int = 0) -> Prepared:
    """Open the slide, find its tissue and return the frozen plan.

    Parameters
    ----------
    network : Network, optional
        By default the job's model is loaded into this process.
    batch : int
        Tiles per forward pass; 0 for the job's, or the device's default.
    """
    started, original = time.monotonic(), stamp(job.source)
    network = network or network_of(job, PoolEngine(), batch)
    source = open_source(
        job.read_from, job.slide, job.tissue, grid_settings(job, network), job.bounds, job.kept_quality
    )
    if job.overlay and not os.path.exists(source.raster.slide.path):
        raise SettingsError(
            f"--overlay draws on the slide itself, and {source.raster.slide.path}, from which {job.source} was made, "
            "is gone; leave --overlay out"
        )
    with closing(source):
        plan = _plan(job, network, source, batch)
        plan = replace(plan, selected=_selected(plan, source.tissue), stamp=original)
        boxes = _shown(plan, source)
        colours = slide_colours(source, boxes) if network.card.colours else None
        change = network.card.change_for(job.grid.stain, colours)
        seen = functools.cache(lambda: pixels_in(source.raster, boxes))
        vectors, told = stains_of(job.stain.stain_vectors, seen)
        stain_warnings = stain_doubts(job.stain.stain_vectors, vectors, seen)
        stains = vectors.as_dict()
        plan = replace(plan, stain=change, stain_vectors=stains, fingerprint=digest([plan.fingerprint, change, stains]))
        if looks := network.forward.looks:
            levels = levels_of((source.raster.read(boxes[k]) for k in sampled(len(boxes))), looks.percentiles)
            plan = replace(plan, levels=levels, fingerprint=digest([plan.fingerprint, levels]))
        if job.types.types:
            from wsipipe.segmentation.typed import check_types  # loads half of SciPy, which others need not wait for

            check_types(job, plan, source.raster.slide)
        if isinstance(source.raster, StoreRaster):
            source.raster.require(plan.tiles, plan.selected)
    warnings = (*source.warnings, *stain_warnings, *colour_warnings(job.grid.stain, network.card, colours))
    if told and vectors != HE:
        progress.say(told)
    for warning in warnings:
        progress.say(f"warning: {warning}")
    return Prepared(
        plan,
        source.raster.slide,
        source.base_mpp,
        source.tissue,
        tissue_area(source.tissue, source.base_mpp, job.bounds),
        network,
        settings_of(job, network),
        warnings,
        time.monotonic() - started,
    )


def _plan(job: SegmentJob, network: Network, source: Source, batch: int) -> Plan:
    """Return the plan without its tiles."""
    settings = settings_of(job, network)
    key = {
        "slide": source.raster.fingerprint,
        "model": network.sha256,
        "recipe": network.forward.recipe,
        "settings": settings,
        "tissue": [shapely.to_wkb(p, hex=True) for p in source.tissue.polygons],
        "bounds": job.bounds,
        "version": __version__,
    }
    head, looks = network.card.head, network.forward.looks
    rules = cell_rules(network.card.rules, job.cells, source.raster.grid)
    return Plan(
        source=job.read_from if "://" in job.read_from else os.path.abspath(job.read_from),
        slide=job.slide,
        grid=grid_settings(job, network),
        run=replace(job.run, batch=batch or job.run.batch),
        model=network.name,
        model_sha256=network.sha256,
        recipe=network.forward.recipe,
        working=source.raster.grid,
        rules=rules,
        tiling=tiling(looks, rules, source.raster.grid.mpp[0]) if looks else (),
        names=network.forward.names,
        classes=head.types if head else (),
        expand_um=job.cells.expand_um,
        bounds=job.bounds,
        slide_fingerprint=source.raster.fingerprint,
        fingerprint=digest(key),
        selected=np.zeros((0, 0), np.bool_),
    )


def _shown(plan: Plan, source: Source) -> list[Box]:
    """Return the tiles (grid px) that show the slide's colours: of the whole tissue, whatever the bounds."""
    everywhere = plan.bounds is None or isinstance(source.raster, StoreRaster)
    chosen = np.argwhere(plan.selected if everywhere else _selected(replace(plan, bounds=None), source.tissue))
    return [plan.tiles.box(i, j) for j, i in chosen.tolist()]


def slide_colours(source: Source, boxes: Sequence[Box]) -> Colours | None:
    """Return the colours of a slide whose tissue the tiles *boxes* (grid px) show; None when there is hardly any."""
    return colours_of(source.raster.read(boxes[k]) for k in sampled(len(boxes)).tolist())


def colour_warnings(stain: str, card: ModelCard, own: Colours | None) -> tuple[str, ...]:
    """Return a line when a slide's colours are far from those of the model's training images."""
    if not own or not card.colours or not card.is_far(own):
        return ()
    what = "left as they are, --stain normalised may find more" if stain == "as-is" else "normalised"
    undo = "" if stain == "as-is" else "; compare with --stain as-is"
    distance = own.distance_to(card.colours)
    return (f"colours are far from the training images' (distance {distance:.1f}, expected up to 1): {what}{undo}",)


def rules_of(rules: Rules, asked: CellSettings) -> Rules:
    """Return the model's *rules* with what the user *asked* for in their place."""
    given = {name: value for name, value in vars(asked).items() if value is not None and hasattr(rules, name)}
    return replace(rules, **given)


def cell_rules(rules: Rules, asked: CellSettings, grid: Grid) -> CellRules:
    """Return :func:`rules_of` in pixels of *grid*."""
    mpp, rules = grid.um2_per_px**0.5, rules_of(rules, asked)
    return CellRules(
        threshold=rules.threshold,
        marker_threshold=rules.marker_threshold,
        min_area_px=rules.min_area_um2 / grid.um2_per_px,
        growth_px=max(1, round(rules.growth_um / mpp)),
        max_diameter_px=max(8, round(rules.max_diameter_um / mpp)),
        min_probability=rules.min_probability,
        drop_oversize=asked.drop_oversize,
        min_type_probability=rules.min_type_probability,
        clump_threshold=rules.clump_threshold,
        clump_part_px=CLUMP_PART_UM2 / grid.um2_per_px,
        clump_share_px=CLUMP_SHARE_UM2 / grid.um2_per_px,
    )


def _selected(plan: Plan, tissue: Tissue) -> Any:
    """Return which tiles to forward: those that hold the pixels of wanted cells, however large; beyond is background.

    They depend on slide, tissue and model alone. Bounds leave out tiles that no wanted cell can depend on.
    """
    tiles: TileGrid = plan.tiles
    if tissue.source == "none":
        chosen = select_tiles(tiles, None)
    else:
        reach = plan.rules.max_diameter_px
        chosen = select_tiles(tiles, lambda boxes: tissue.overlaps(boxes, plan.working.scale), reach)
    if plan.bounds is not None:
        box = plan.working.grid_box(plan.bounds)
        if is_empty(box):
            w, h = plan.working.base_box((0, 0, *plan.working.size))[2:]
            raise SettingsError(
                f"--bounds {plan.bounds} lies outside the slide; expected a box that overlaps 0,0,{w:.0f},{h:.0f}"
            )
        i0, j0, i1, j1 = tiles.tiles_over(grow(box, plan.halo))
        near = np.zeros_like(chosen)
        near[j0:j1, i0:i1] = True
        chosen = chosen & near
    return chosen


def tissue_area(tissue: Tissue, base_mpp: Pair, bounds: Box | None) -> float:
    """Return the analysed tissue in µm²."""
    if bounds is None:
        return tissue.area_um2
    inside = shapely.intersection(shapely.MultiPolygon(tissue.polygons), shapely.box(*bounds))
    return float(inside.area) * base_mpp[0] * base_mpp[1]
