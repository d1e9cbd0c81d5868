"""``wsipipe segment``: the main command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.cli.types import BoxType
from wsipipe.settings import CellSettings, ExportSettings, GridSettings, RunSettings, SlideSettings, TissueSettings
from wsipipe.units import Box

if TYPE_CHECKING:
    from wsipipe.pipelines.segment import SegmentJob, SegmentResult

STAGES = ("prepare", "decode", "network", "scratch", "blend", "cells", "polygons", "measure", "write")


@click.command(cls=Command)
@click.argument("slide", metavar="SLIDE")
@click.option(
    "-o", "--output", "outputs", multiple=True, required=True, type=click.Path(path_type=Path, dir_okay=False),
    metavar="OUT", help="Where the cells go: .geojson, .geojson.gz or .parquet; may be given several times.",
)  # fmt: skip
@click.option("--model", default="cmd-t", show_default=True, help="Shipped model, or a .safetensors file.")
@click.option("--bounds", type=BoxType(), default=None, help="Only cells in this box of level-0 pixels.")
@click.option(
    "--overlay", type=click.Path(path_type=Path, dir_okay=False), default=None, metavar="PNG",
    help="Picture of the outlines over the slide (or over --bounds).",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be done, and what it needs; do nothing.")
@click.option("--force", is_flag=True, help="Run again even if the outputs are there and up to date.")
@config_option
@options_for(SlideSettings, TissueSettings, GridSettings, CellSettings, RunSettings, ExportSettings)
def segment(
    slide: str,
    outputs: tuple[Path, ...],
    model: str,
    bounds: Box | None,
    overlay: Path | None,
    dry_run: bool,
    force: bool,
    config: Any,
    **options: Any,
) -> None:
    """Find the cells of SLIDE and write them as polygons in level-0 pixels.

    SLIDE is a whole-slide image, a picture (with --mpp), or a store made by `wsipipe tile`. In GeoJSON, cells are
    QuPath detections; the Parquet file has all measurements and opens in geopandas. What was interrupted is resumed
    by the same command.

    \b
    Examples:
      wsipipe segment slide.svs -o cells.geojson
      wsipipe segment slide.svs -o cells.parquet -o cells.geojson.gz --overlay cells.png
      wsipipe segment region.png --mpp 0.25 --tissue none -o cells.geojson
      wsipipe segment slide.svs -o cells.geojson --bounds 10000,8000,14096,12096
    """
    from wsipipe.cli.notice import show_notice
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.segment import SegmentJob, run_segment

    job = SegmentJob(
        source=slide,
        outputs=outputs,
        model=model,
        bounds=bounds,
        overlay=overlay,
        force=force,
        slide=collect(SlideSettings, options, config),
        tissue=collect(TissueSettings, options, config),
        grid=collect(GridSettings, options, config),
        cells=collect(CellSettings, options, config),
        run=collect(RunSettings, options, config),
        export=collect(ExportSettings, options, config),
    )
    if dry_run:
        _show_plan(job)
        return
    show_notice(model)
    with TerminalProgress() as progress:
        try:
            result = run_segment(job, progress)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("the same command resumes it") from stop
    _show_result(job, result)


def _show_plan(job: SegmentJob) -> None:
    """Print what a run would do and need."""
    from wsipipe.pipelines.dry_run import estimate
    from wsipipe.schedule.progress import Progress

    for name, value in estimate(job, Progress()):
        click.echo(f"{name:<10} {value}")


def _show_result(job: SegmentJob, result: SegmentResult) -> None:
    """Print the closing lines: cells, density, seconds per stage, bottleneck, outputs."""
    if not result.fresh:
        click.echo(f"up to date: {result.cells:,} cells in {_names(job)} (--force runs again)")
        return
    if not result.tissue_mm2:
        hint = "--tissue none takes every pixel"
        click.echo(f"no tissue found in {job.source}: wrote an empty result to {_names(job)} ({hint})")
        return
    click.echo(
        f"{result.cells:,} cells in {result.tissue_mm2:.3g} mm² of tissue: {result.density:,.0f} cells/mm², "
        f"{result.wall:.1f} s ({result.wall / result.tissue_mm2:.1f} s/mm²)"
    )
    spent = [f"{stage} {result.seconds[stage]:.1f}" for stage in STAGES if result.seconds.get(stage, 0) >= 0.05]
    click.echo(f"seconds: {', '.join(spent)}; bottleneck: {result.bottleneck}")
    if result.bad_boxes:
        click.echo(f"{result.bad_boxes} unreadable areas were left out; their boxes are in {job.record.name}")
    click.echo(f"wrote {_names(job)}")


def _names(job: SegmentJob) -> str:
    return ", ".join(str(path) for path in (*job.outputs, *([job.overlay] if job.overlay else [])))
