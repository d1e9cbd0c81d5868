"""``wsipipe tile``: tissue and tile pixels of a slide as a sharded Zarr store."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.cli.types import BoxType
from wsipipe.settings import GridSettings, RunSettings, SlideSettings, StoreSettings, TissueSettings
from wsipipe.units import Box

if TYPE_CHECKING:
    from wsipipe.pipelines.tile import TileJob
    from wsipipe.raster import SlideRaster
    from wsipipe.store import StorePlan
    from wsipipe.tissue import Tissue

FILE = click.Path(path_type=Path, dir_okay=False)
NOT_OF_TILING = ("block", "device", "precision", "batch", "engine", "readers")


@click.command(cls=Command)
@click.argument("slide", metavar="SLIDE")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="STORE",
    help="The store, a folder: .zarr.",
)
@click.option("--bounds", type=BoxType(), help="Only tiles that cells in this box of level-0 pixels depend on.")
@click.option("--trident", type=FILE, metavar="H5", help="Also write tile coordinates for Trident and CLAM.")
@click.option("--tissue-out", type=FILE, metavar="GEOJSON", help="Also write the tissue, to edit in QuPath.")
@click.option("--dry-run", is_flag=True, help="Say what would be stored; write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace what stands at the output even if it is of another slide.")
@config_option
@options_for(SlideSettings, TissueSettings, GridSettings, StoreSettings, exclude=("stain",))
@options_for(RunSettings, exclude=NOT_OF_TILING)
def tile(
    slide: str,
    output: Path,
    bounds: Box | None,
    trident: Path | None,
    tissue_out: Path | None,
    dry_run: bool,
    overwrite: bool,
    config: Any,
    **options: Any,
) -> None:
    """Store the tissue of SLIDE and the pixels of its tiles at the working resolution.

    `wsipipe segment` takes such a store in place of the slide and gives the same cells. What was interrupted is resumed
    by the same command.

    \b
    Examples:
      wsipipe tile slide.svs -o slide.zarr
      wsipipe tile slide.svs -o slide.zarr --tissue edited.geojson --target-mpp 0.25
      wsipipe tile slide.svs -o slide.zarr --trident slide.h5 --overlap 0
      wsipipe tile slide.svs -o part.zarr --bounds 10000,8000,14096,12096
    """
    from wsipipe.pipelines.tile import TileJob, plan_tile

    run = collect(RunSettings, options, config)
    job = TileJob(
        slide=slide,
        output=output,
        trident=trident,
        tissue_out=tissue_out,
        workers=_threads(run.workers),
        max_bad=run.max_bad_tiles,
        bounds=bounds,
        overwrite=overwrite,
        slide_settings=collect(SlideSettings, options, config),
        tissue=collect(TissueSettings, options, config),
        grid=collect(GridSettings, options, config),
        store=collect(StoreSettings, options, config),
    )
    raster, tissue, plan = plan_tile(job)
    with contextlib.closing(raster):
        for line in summary(raster, tissue, plan):
            click.echo(line, err=not dry_run)
        if not dry_run:
            _write(job, raster, tissue, plan)


command = tile


def summary(raster: SlideRaster, tissue: Tissue, plan: StorePlan) -> list[str]:
    """Return lines that say what will be stored, and what is doubtful."""
    (width, height), (mpp, _) = raster.grid.size, raster.grid.mpp
    tiles, chosen = plan.selected.size, int(plan.selected.sum())
    shards, gigabytes = len(plan.shards()), plan.raw_bytes / 1e9
    lines = [
        f"grid    {width:,} x {height:,} px at {mpp:.4g} µm/px, from level {raster.grid.level}",
        f"tissue  {tissue.area_um2 / 1e6:.4g} mm² in {len(tissue.polygons)} pieces ({tissue.source})",
        f"tiles   {chosen:,} of {tiles:,}",
        f"store   {gigabytes:.3g} GB of pixels before compression, {shards} files",
    ]
    lines += [] if chosen else ["no tissue: the store will be empty"]
    return lines + [f"warning: {text}" for text in (*raster.slide.warnings, *tissue.warnings)]


def _write(job: TileJob, raster: SlideRaster, tissue: Tissue, plan: StorePlan) -> None:
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.tile import tile as run

    with TerminalProgress() as bars:
        bars.start("tiles", int(plan.chunks.sum()))
        done = 0

        def move(count: int, _total: int) -> None:
            nonlocal done
            bars.advance("tiles", count - done)
            done = count

        try:
            fresh = run(job, raster, tissue, plan, move)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"run the same command again to complete {job.output}") from error
    click.echo(f"{job.output}: {'written' if fresh else 'there already, up to date'}", err=True)


def _threads(workers: int) -> int:
    """Return the number of reading threads; 0 asks for one per core that this process may use."""
    from wsipipe.schedule.resources import allowed_cores

    return workers or allowed_cores()
