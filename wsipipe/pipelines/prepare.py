"""Before a slide is segmented: open it, find its tissue, load the model, freeze the plan."""

from __future__ import annotations

import os
import platform
import socket
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

import wsipipe
from wsipipe.artifacts import digest
from wsipipe.errors import SettingsError
from wsipipe.formats.parquet import write_part
from wsipipe.formats.table import cells_table
from wsipipe.geometry import Grid, grow, is_empty
from wsipipe.instances import CellRules
from wsipipe.measure import MEASURES
from wsipipe.models.checkpoint import ModelCard, Rules, model_hash
from wsipipe.models.zoo import resolve
from wsipipe.pipelines.source import open_source
from wsipipe.predict import Predictor, card_of, load_predictor, set_threads
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores
from wsipipe.schedule.scratch import Scratch
from wsipipe.schedule.task import Plan
from wsipipe.settings import CellSettings, determining
from wsipipe.slide.protocol import SlideInfo
from wsipipe.store import StoreRaster
from wsipipe.tiling import TileGrid, select_tiles
from wsipipe.tissue import Tissue
from wsipipe.units import Box, Pair

if TYPE_CHECKING:
    from wsipipe.pipelines.segment import SegmentJob, SegmentResult


@dataclass(frozen=True, eq=False)
class Prepared:
    """A slide that is ready to run."""

    plan: Plan
    info: SlideInfo
    base_mpp: Pair
    tissue: Tissue
    tissue_um2: float
    card: ModelCard
    model_sha256: str
    predictor: Predictor | None
    recipe: dict[str, Any]
    settings: dict[str, Any]
    warnings: tuple[str, ...]
    seconds: float

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the run."""
        return self.plan.fingerprint

    def empty_part(self, folder: Path) -> Path:
        """Write and return a part without cells, for a slide without tissue."""
        path = Scratch(folder).part(0)
        nothing = _NoCells()
        measures = {name: np.zeros(0) for name in MEASURES}
        none = np.zeros(0, np.object_)
        nuclei = none if self.plan.expand_um else None
        table = cells_table(
            nothing, none, measures, fingerprint=self.plan.slide_fingerprint, classes=self.plan.classes, nuclei=nuclei
        )
        write_part(table, path)
        return path


class _NoCells:
    sums = np.zeros((0, 3), np.int64)
    probability = np.zeros(0, np.float32)
    type = np.zeros(0, np.int16)
    type_probability = np.zeros(0, np.float32)
    oversize = np.zeros(0, np.bool_)


def prepare(job: SegmentJob, progress: Progress, batch: int = 0) -> Prepared:
    """Open the slide, find its tissue, load the model and return the frozen plan.

    Parameters
    ----------
    batch : int
        Tiles per forward pass; 0 for the device's default.
    """
    started = time.monotonic()
    model = resolve(job.model).resolve()
    card, sha = card_of(model), model_hash(model)
    if card.head is None:
        raise SettingsError(f"--model {job.model} is a backbone without a head; fit one with `wsipipe fit`")
    grid_settings = replace(job.grid, target_mpp=job.grid.target_mpp or card.mpp)
    source = open_source(job.source, job.slide, job.tissue, grid_settings)
    if job.overlay and not os.path.exists(source.raster.slide.path):
        raise SettingsError(
            f"--overlay draws on the slide itself, and {source.raster.slide.path}, from which {job.source} was made, "
            "is gone; leave --overlay out"
        )
    for warning in source.warnings:
        progress.say(f"warning: {warning}")
    set_threads(allowed_cores())
    predictor = load_predictor(model, job.run.device, job.run.precision, batch)
    recipe = asdict(predictor.recipe)
    run = replace(job.run, batch=predictor.batch, device=str(predictor.device), precision=_short(recipe["dtype"]))
    rules = cell_rules(card.rules, job.cells, source.raster.grid)
    settings = {
        name: determining(part)
        for name, part in (("tissue", job.tissue), ("grid", grid_settings), ("cells", job.cells), ("slide", job.slide))
    }
    settings["export"] = determining(job.export)
    key = {
        "slide": source.raster.fingerprint,
        "model": sha,
        "recipe": recipe,
        "settings": settings,
        "tissue": [shapely.to_wkb(p, hex=True) for p in source.tissue.polygons],
        "bounds": job.bounds,
        "version": wsipipe.__version__,
    }
    plan = Plan(
        source=os.path.abspath(job.source) if "://" not in job.source else job.source,
        slide=job.slide,
        grid=grid_settings,
        run=run,
        model=str(model),
        working=source.raster.grid,
        rules=rules,
        names=predictor.names,
        classes=card.head.types,
        expand_um=job.cells.expand_um,
        bounds=job.bounds,
        slide_fingerprint=source.raster.fingerprint,
        fingerprint=digest(key),
        selected=np.zeros((0, 0), np.bool_),
    )
    plan = replace(plan, selected=_selected(plan, source.tissue))
    if isinstance(source.raster, StoreRaster):
        source.raster.require(plan.tiles, plan.selected)
    area = tissue_area(source.tissue, source.base_mpp, job.bounds)
    return Prepared(
        plan,
        source.raster.slide,
        source.base_mpp,
        source.tissue,
        area,
        card,
        sha,
        predictor,
        recipe,
        settings,
        tuple(source.warnings),
        time.monotonic() - started,
    )


def _short(dtype: str) -> str:
    return {"float32": "fp32", "bfloat16": "bf16"}[dtype]


def cell_rules(rules: Rules, asked: CellSettings, grid: Grid) -> CellRules:
    """Return the model's *rules* in pixels of *grid*, with what the user *asked* for in their place."""
    mpp = grid.um2_per_px**0.5

    def chosen(value: float | None, default: float) -> float:
        return default if value is None else value

    return CellRules(
        threshold=chosen(asked.threshold, rules.threshold),
        marker_threshold=chosen(asked.marker_threshold, rules.marker_threshold),
        min_area_px=chosen(asked.min_area_um2, rules.min_area_um2) / grid.um2_per_px,
        growth_px=max(1, round(rules.growth_um / mpp)),
        max_diameter_px=max(8, round(rules.max_diameter_um / mpp)),
        min_probability=asked.min_probability,
    )


def _selected(plan: Plan, tissue: Tissue) -> Any:
    """Return which tiles to forward: all that a wanted cell's pixels can depend on."""
    tiles: TileGrid = plan.tiles
    if tissue.source == "none":
        chosen = select_tiles(tiles, None)
    else:
        chosen = select_tiles(tiles, lambda boxes: tissue.overlaps(boxes, plan.working.scale), plan.halo)
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
    """Return the analysed tissue in um²."""
    if bounds is None:
        return tissue.area_um2
    inside = shapely.intersection(shapely.MultiPolygon(tissue.polygons), shapely.box(*bounds))
    return float(inside.area) * base_mpp[0] * base_mpp[1]


def bad_share(bad: list[Box], prepared: Prepared) -> float:
    """Return the share of the analysed pixels that cannot be read."""
    area = sum((b[2] - b[0]) * (b[3] - b[1]) for b in bad)
    plan = prepared.plan
    read = int(plan.selected.sum()) * plan.tiles.stride**2
    return area / max(1, min(read, plan.working.size[0] * plan.working.size[1]))


def file_metadata(prepared: Prepared, bad: list[Box]) -> dict[str, Any]:
    """Return what the master file says of itself: only what determines the result."""
    info, card = prepared.info, prepared.card
    base = prepared.plan.working.base_box
    boxes = [tuple(round(v) for v in base(box)) for box in bad]
    return {
        "fingerprint": prepared.plan.slide_fingerprint,
        "run_fingerprint": prepared.fingerprint,
        "size": list(info.size),
        "bounds": list(info.bounds) if info.bounds else None,
        "mpp": list(prepared.base_mpp),
        "mpp_source": str(info.mpp_source or "override"),
        "working_mpp": list(prepared.plan.working.mpp),
        "model": {"name": card.name, "sha256": prepared.model_sha256, "licence": card.licence},
        "classes": {name: list(colour) for name, colour in card.classes.items()},
        "recipe": prepared.recipe,
        "settings": prepared.settings,
        "analysed": list(prepared.plan.bounds) if prepared.plan.bounds else None,
        "tissue_area_um2": round(prepared.tissue_um2, 3),
        "bad_boxes": boxes,
        "version": wsipipe.__version__,
    }


def run_record(job: SegmentJob, prepared: Prepared, result: SegmentResult) -> dict[str, Any]:
    """Return the run record: what was run, when, where, how fast, and the outputs with their sizes."""
    outputs = [*job.outputs, *([job.overlay] if job.overlay else [])]
    return {
        "fingerprint": prepared.fingerprint,
        "outputs": {p.name: p.stat().st_size for p in outputs if p.is_file()},
        "cells": result.cells,
        "tissue_mm2": result.tissue_mm2,
        "cells_per_mm2": result.density,
        "bad_boxes": result.bad_boxes,
        "seconds": {k: round(v, 3) for k, v in result.seconds.items()} | {"wall": round(result.wall, 3)},
        "bottleneck": result.bottleneck,
        "warnings": list(result.warnings),
        "slide": job.source,
        "model": prepared.plan.model,
        "settings": prepared.settings,
        "recipe": prepared.recipe,
        "run": asdict(prepared.plan.run),
        "tiles": int(prepared.plan.selected.sum()),
        "blocks": len(prepared.plan.blocks),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "version": wsipipe.__version__,
    }
