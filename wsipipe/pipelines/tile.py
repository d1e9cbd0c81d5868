"""The story of ``wsipipe tile``: a slide in, a store of its tissue's tiles out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wsipipe.artifacts import check_writable, read_json
from wsipipe.formats.trident import write_coords_h5
from wsipipe.quality.kept import beside, keep
from wsipipe.raster import SlideRaster, slide_grid
from wsipipe.raster.tiling import TileGrid
from wsipipe.runs import claims
from wsipipe.segmentation.origin import record_of, refuse_other, write_record
from wsipipe.segmentation.request import is_stale
from wsipipe.settings import GridSettings, SlideSettings, StoreSettings, TissueSettings
from wsipipe.slide import fingerprint, open_slide, require_mpp
from wsipipe.store import StorePlan, open_store, plan_store, write_store
from wsipipe.store.read import read_about
from wsipipe.store.write import Progress
from wsipipe.tissue import Tissue, find_tissue, viewer_origin
from wsipipe.units import Box

DEFAULT_MPP = 0.5


@dataclass(frozen=True)
class TileJob:
    """What to store and where: the slide, the store, and on request Trident's coordinates and the tissue as GeoJSON."""

    slide: str
    output: Path
    trident: Path | None = None
    tissue_out: Path | None = None
    workers: int = 1
    max_bad: float = 0.05
    bounds: Box | None = None
    overwrite: bool = False
    slide_settings: SlideSettings = field(default_factory=SlideSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)
    grid: GridSettings = field(default_factory=GridSettings)
    store: StoreSettings = field(default_factory=StoreSettings)


def plan_tile(job: TileJob) -> tuple[SlideRaster, Tissue, StorePlan]:
    """Return the slide's raster, its tissue, and what the store will hold; reads no more than a small picture."""
    known = fingerprint(job.slide)  # first: what is read from here on must be of this file
    slide = open_slide(job.slide, job.slide_settings)
    base_mpp = require_mpp(slide.info, job.slide_settings)
    target = job.grid.target_mpp or DEFAULT_MPP
    raster = SlideRaster(slide, slide_grid(slide.info, base_mpp, target, job.grid.allow_upsample), known)
    tissue = find_tissue(slide, base_mpp, job.tissue, kept=[beside(job.output)])
    tiles = TileGrid(raster.grid.size, job.grid.overlap)
    return raster, tissue, plan_store(raster, tissue, tiles, job.store, job.tissue, job.bounds)


@claims(lambda job: (record_of(job.output), job.trident, job.tissue_out))
def tile(job: TileJob, raster: SlideRaster, tissue: Tissue, plan: StorePlan, progress: Progress | None = None) -> bool:
    """Write what *plan* describes and the side files; return False when the store was there and up to date.

    Where the quality of the slide was looked at, its map is kept beside the store.

    Raises
    ------
    OutputError
        When the store of another slide is there, or it cannot be written.
    SlideError
        When too much of the slide cannot be read, or its file changed meanwhile.
    """
    record = read_json(record_of(job.output))
    made = {"slide": record.get("slide"), "slide_fingerprint": read_about(job.output).get("fingerprint")}
    refuse_other(job.output, made, job.slide, raster.fingerprint, job.overwrite)
    for path in filter(None, (job.trident, job.tissue_out)):
        check_writable(path)
    again = is_stale(record, job.slide)
    fresh = write_store(
        raster, plan, job.output, workers=job.workers, max_bad=job.max_bad, progress=progress, again=again
    )
    if fresh or not record:
        write_record(job.output, job.slide, raster.fingerprint, open_store(job.output).raster.bad)
    if tissue.quality is not None:
        keep(beside(job.output), tissue.quality)
    if job.trident is not None:
        name = Path(job.slide).stem
        write_coords_h5(job.trident, plan.coords(), raster.slide, raster.grid, job.grid.overlap, name)
    if job.tissue_out is not None:
        tissue.to_geojson(job.tissue_out, viewer_origin(raster.slide))
    return fresh
