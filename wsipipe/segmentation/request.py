"""What is asked of a slide, as a digest that is known before the slide is opened; and whether it was done before."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsipipe._version import __version__
from wsipipe.artifacts import digest, read_json
from wsipipe.errors import SettingsError, SlideError
from wsipipe.models.checkpoint import ModelCard
from wsipipe.plugins.opening import AnyPredictor, card_of, check_settings, full_name, weights_digest
from wsipipe.schedule.engine import Engine, Forward
from wsipipe.segmentation.job import SegmentJob, SegmentResult
from wsipipe.settings import GridSettings, determining
from wsipipe.slide import changed, fingerprint, stamp
from wsipipe.store import is_store, open_store
from wsipipe.store.plan import tissue_json


@dataclass(frozen=True, eq=False)
class Network:
    """A model, and what it is like where it runs.

    Attributes
    ----------
    name : str
        Of a shipped model, else the checkpoint's absolute path; of a plug-in with its name before.
    predictor : AnyPredictor or None
        The loaded network, where this process runs it.
    """

    name: str
    card: ModelCard
    sha256: str
    forward: Forward
    predictor: AnyPredictor | None = None


def network_of(job: SegmentJob, engine: Engine, batch: int = 0) -> Network:
    """Return the network that *job* asks for, loaded where *engine* runs it.

    Parameters
    ----------
    batch : int
        Tiles per forward pass; 0 takes the job's, or the device's default.

    Raises
    ------
    ModelError, SettingsError
    """
    name, card, sha = full_name(job.model), card_of(job.model), weights_digest(job.model)
    if card is not None and card.head is None:
        raise SettingsError(f"--model {job.model} is a backbone without a head; fit one with `wsipipe fit`")
    forward = engine.forward(name, sha, job.run, batch or job.run.batch)
    if forward.looks is not None:
        check_settings(job.model, job.cells, job.grid)
    return Network(name, card or forward.card, sha, forward, engine.predictor)


def grid_settings(job: SegmentJob, network: Network) -> GridSettings:
    """Return the job's grid, at the model's resolution unless another one is asked for."""
    return replace(job.grid, target_mpp=job.grid.target_mpp or network.card.mpp)


def settings_of(job: SegmentJob, network: Network) -> dict[str, Any]:
    """Return every setting that determines the result."""
    parts = {
        "tissue": job.tissue,
        "grid": grid_settings(job, network),
        "cells": job.cells,
        "slide": job.slide,
        "export": job.export,
        "stain": job.stain,
        "types": job.types,
    }
    settings = {name: determining(part) for name, part in parts.items()}
    for section, name in (("tissue", "tissue"), ("stain", "stain_vectors"), ("types", "types")):
        if content := content_of(settings[section][name]):
            settings[section][name] = f"file {content}"  # its content counts, not its path
    return settings


def request_of(job: SegmentJob, network: Network) -> str:
    """Return the digest of slide, tissue, model, recipe, settings and version; reads samples of the slide's bytes.

    Raises
    ------
    SlideError
        When the slide is missing or cannot be read.
    """
    key = {
        "slide": _content(job.source, job.read_from),
        "model": network.sha256,
        "recipe": network.forward.recipe,
        "settings": settings_of(job, network),
        "bounds": job.bounds,
        "unreadable": job.run.max_bad_tiles,
        "version": __version__,
    }
    return digest(key)


def check_request(job: SegmentJob, network: Network, request: str) -> None:
    """Raise SlideChanged when slide or tissue are not any more what *request* was made of."""
    if request_of(replace(job, copy=""), network) != request:
        raise changed(job.source)


def slide_fingerprint(source: str) -> str:
    """Return the fingerprint of a slide, or of the one that a tile store was made from."""
    return open_store(source).raster.fingerprint if is_store(source) else fingerprint(source)


def _content(source: str, path: str) -> Any:
    """Return what stands for the pixels: the slide's fingerprint, of a tile store also its tissue."""
    if not is_store(path):
        return fingerprint(path)
    store = open_store(source)
    return {"slide": store.raster.fingerprint, "tissue": tissue_json(store.tissue)}


def content_of(given: str) -> str:
    """Return the digest of a file that a setting names, "" where there is none."""
    path = Path(given)
    return digest(path.read_text(encoding="utf-8", errors="replace"))[:16] if path.is_file() else ""


def finished_before(job: SegmentJob, request: str, since: float = math.inf) -> SegmentResult | None:
    """Return the result of an earlier run with the same *request* whose outputs are all still there, and whole.

    One with unreadable areas counts only when it was made after *since* (seconds since 1970): by a process that works
    on the same slides. Nor does one of a file that had another size or time.
    """
    record = read_json(job.record)
    try:
        outputs = record["outputs"]
        if record["request"] != request or not set(record["asked"]) >= {path.name for path in job.wanted}:
            return None
        if is_stale(record, job.source) or (record["bad_boxes"] and job.record.stat().st_mtime < since):
            return None
        if any((job.record.parent / name).stat().st_size != size for name, size in outputs.items()):
            return None
        counts, warned = (record["cells"], record["tissue_mm2"]), tuple(record["warnings"])
        return SegmentResult(*counts, 0.0, {}, warned, record["bad_boxes"], record["bad_share"], fresh=False)
    except (OSError, KeyError, TypeError, AttributeError):
        return None


def slide_file(source: str) -> dict[str, int] | None:
    """Return what a run record says of the original's file, None where it is not there."""
    try:
        return stamp(source)._asdict()
    except SlideError:
        return None


def is_stale(record: dict[str, Any], source: str) -> bool:
    """Whether the original had another size or time when *record* was written (older ones do not say)."""
    return "slide_file" in record and record["slide_file"] != slide_file(source)
