"""The story of ``wsipipe features``: a slide in, the features of its tissue tiles or of its cells out."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsipipe._version import __version__
from wsipipe.artifacts import digest, read_json
from wsipipe.errors import SettingsError
from wsipipe.formats.features import check_suffix, features_made, write_features
from wsipipe.formats.trident import tile_attributes
from wsipipe.infer.embed import Embedder, load_embedder
from wsipipe.infer.tiles import Pixels
from wsipipe.models.checkpoint import read_card
from wsipipe.models.device import SmallerBatch
from wsipipe.models.threads import set_threads
from wsipipe.models.zoo import DEFAULT, resolve
from wsipipe.raster.unreadable import kept_bad
from wsipipe.runs import Lease, Work, claimed, forget, work_of
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import network_threads
from wsipipe.segmentation.origin import record_of, refuse_other, write_record
from wsipipe.segmentation.places import Places, around_cells, tiles_in
from wsipipe.segmentation.prepare import colour_warnings, slide_colours
from wsipipe.segmentation.request import is_stale, slide_file, slide_fingerprint
from wsipipe.segmentation.source import Source, open_source
from wsipipe.settings import FeatureSettings, GridSettings, RunSettings, SlideSettings, TissueSettings, determining
from wsipipe.slide import changed
from wsipipe.stain import Change
from wsipipe.store import is_store

ENCODER_MPP = 0.5
"""Resolution of the tiles of a foundation model, µm/px (20x), where none is asked for."""
FLUSH = 16
"""Batches between two writes of an unfinished run."""


@dataclass(frozen=True)
class FeaturesJob:
    """Of what, by which model, and where to; without a model by the encoder of *features*.

    ``cells`` is a master file: its cells are asked for in place of the tissue's tiles.
    """

    source: str
    output: Path
    model: str = DEFAULT
    force: bool = False
    overwrite: bool = False
    features: FeatureSettings = field(default_factory=FeatureSettings)
    slide: SlideSettings = field(default_factory=SlideSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)
    grid: GridSettings = field(default_factory=GridSettings)
    run: RunSettings = field(default_factory=RunSettings)
    cells: Path | None = None

    @property
    def work(self) -> Path:
        """Folder of the unfinished run."""
        return work_of(self.output)


@dataclass(frozen=True)
class Features:
    """What came of it: tiles (or cells), features of each, unreadable areas, and whether it had to be made."""

    tiles: int
    width: int
    bad: int = 0
    fresh: bool = True


def run_features(job: FeaturesJob, progress: Progress) -> Features:
    """Write the features of a slide's tissue tiles, or cells; the same call goes on with an interrupted run.

    Raises
    ------
    WsipipeError
        What stood at the output is untouched.
    """
    check_suffix(job.output)
    path = resolve(job.model).resolve() if job.model else None
    mpp = read_card(path).mpp if path else ENCODER_MPP
    grid = replace(job.grid, target_mpp=job.grid.target_mpp or mpp, overlap=job.features.overlap)
    if job.cells and is_store(job.source):
        raise SettingsError(f"--cells: {job.source} holds the tiles of tissue alone; give the slide itself")
    tissue = replace(job.tissue, tissue="none") if job.cells else job.tissue
    with (
        claimed(job.output) as (lease,),
        contextlib.closing(open_source(job.source, job.slide, tissue, grid)) as source,
    ):
        for warning in source.warnings:
            progress.say(f"warning: {warning}")
        set_threads(network_threads())
        batch = job.run.batch
        while True:
            embedder, sha = load_embedder(path, job.run, job.features, batch)
            try:
                return _run(job, source, embedder, sha, lease, progress)
            except SmallerBatch as error:
                progress.say(str(error))
                batch = error.batch


def _run(job: FeaturesJob, source: Source, embedder: Embedder, sha: str, lease: Lease, progress: Progress) -> Features:
    grid = source.raster.grid
    places = around_cells(source, job.cells) if job.cells else tiles_in(source, job.features)
    boxes = places.boxes
    colours = slide_colours(source, boxes.tolist()) if embedder.card.colours else None
    for warning in colour_warnings(job.grid.stain, embedder.card, colours):
        progress.say(f"warning: {warning}")
    change = embedder.card.change_for(job.grid.stain, colours)
    about = _about(job, source, embedder, sha, places, change)
    made, record = features_made(job.output), read_json(record_of(job.output))
    same = made.get("fingerprint") == about["fingerprint"] and not is_stale(record, job.source)
    began = slide_file(job.source)
    key = digest([about["fingerprint"], began])
    if same and not job.force and not made.get("bad_boxes"):
        forget(job.work, key)
        return Features(len(boxes), embedder.width, fresh=False)
    known = {"slide": record.get("slide"), "slide_fingerprint": made.get("slide")}
    refuse_other(job.output, known, job.source, source.raster.fingerprint, job.overwrite)
    pixels = Pixels(source.raster, boxes, embedder.margin, change)
    work = Work(job.work, key)
    features = _embed(work, pixels, embedder, lease, progress, places.of)
    met = kept_bad(job.work, source.raster)  # also what an interrupted run met
    bad = places.unreadable(met, source.raster, job.run.max_bad_tiles)
    if bad:
        about["bad_boxes"] = [[round(v) for v in grid.base_box(box)] for box in bad]
    if began != slide_file(job.source) or slide_fingerprint(job.source) != source.raster.fingerprint:
        raise changed(job.source)
    coords = np.rint(boxes[:, :2] * np.array(grid.scale)).astype(np.int64)
    name = Path(job.source).stem
    attributes = tile_attributes(job.output, source.raster.slide, grid, job.features.overlap, name)
    lease.check()
    write_features(job.output, features, coords, attributes, about, places.cell_ids)
    write_record(job.output, job.source, source.raster.fingerprint, bad)
    work.remove()
    return Features(len(boxes), embedder.width, len(bad))


def _about(
    job: FeaturesJob, source: Source, embedder: Embedder, sha: str, places: Places, change: Change
) -> dict[str, Any]:
    """Return what determines the features, with its digest."""
    about = {
        "slide": source.raster.fingerprint,
        "model": {"name": embedder.card.name, "sha256": sha, "licence": embedder.card.licence},
        "recipe": asdict(embedder.recipe),
        "mpp": list(source.raster.grid.mpp),
        "settings": determining(job.features),
        "version": __version__,
    }
    about |= {"stain": change} if change else {}
    about |= {"encoder": embedder.encoder.name} if embedder.encoder else {}
    return about | {"of": places.of, "fingerprint": digest(about | {"boxes": places.key})}


def _embed(
    work: Work, pixels: Pixels, embedder: Embedder, lease: Lease, progress: Progress, stage: str
) -> NDArray[np.float32]:
    """Return the features (n, D) of tiles or cells, from where an interrupted run of the same *work* stopped."""
    kept = work.folder / "features.f32"
    if not work.resumed:
        work.begin()
    row = 4 * embedder.width
    done = kept.stat().st_size // row // embedder.batch * embedder.batch if kept.exists() else 0
    progress.start(stage, len(pixels.boxes))
    progress.advance(stage, done)
    with kept.open("ab") as file:
        file.truncate(done * row)
        held: list[NDArray[np.float32]] = []
        for batch in pixels.batches(done, embedder.batch):
            held.append(embedder.features(batch))
            lease.check()
            progress.advance(stage, len(batch))
            if len(held) == FLUSH:
                kept_bad(work.folder, pixels.raster)
                file.write(np.concatenate(held).tobytes())
                file.flush()
                held = []
        file.write(np.concatenate(held).tobytes() if held else b"")
    return np.fromfile(kept, np.float32).reshape(-1, embedder.width)
