"""``wsipipe segment``: the main command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import MODEL, Command, collect, config_option, options_for
from wsipipe.cli.types import BoxType
from wsipipe.errors import OutputError, SettingsError
from wsipipe.models.zoo import DEFAULT
from wsipipe.settings import (
    BatchSettings,
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

if TYPE_CHECKING:
    from wsipipe.segmentation.job import SegmentJob, SegmentResult


@click.command(cls=Command)
@click.argument("slides", metavar="SLIDE...", nargs=-1, required=True)
@click.option(
    "-o", "--output", "outputs", multiple=True, required=True, metavar="OUT",
    help="Where the cells go: .geojson, .geojson.gz, .parquet, .csv, .gpkg, .json (DSA) or .h5, also several times; or "
    "a folder, for any number of slides.",
)  # fmt: skip
@click.option("--model", default=DEFAULT, show_default=True, help=MODEL)
@click.option("--bounds", type=BoxType(), default=None, help="Only cells in this box of level-0 pixels.")
@click.option(
    "--overlay", type=click.Path(path_type=Path, dir_okay=False), default=None, metavar="PNG",
    help="Picture of the outlines over the slide (or over --bounds). Of several slides: --format parquet,png.",
)  # fmt: skip
@click.option("--report", is_flag=True, help="HTML report beside each .parquet; in a folder also of all slides.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and what it needs; do nothing.")
@click.option("--force", is_flag=True, help="Run again even if the outputs are there and up to date.")
@click.option("--overwrite", is_flag=True, help="Replace what stands at the output even if it is of another slide.")
@config_option
@options_for(SlideSettings, TissueSettings, GridSettings, CellSettings, RunSettings, ClusterSettings, ExportSettings)
@options_for(StainSettings, TypeSettings, BatchSettings)
def segment(
    slides: tuple[str, ...],
    outputs: tuple[str, ...],
    model: str,
    bounds: Box | None,
    overlay: Path | None,
    report: bool,
    dry_run: bool,
    force: bool,
    overwrite: bool,
    config: Any,
    **options: Any,
) -> int:
    """Find the cells of slides and write them as polygons in level-0 pixels.

    SLIDE is a whole-slide image, a picture (with --mpp), or a store made by `wsipipe tile`. In GeoJSON, cells are
    QuPath detections; the Parquet file has all measurements and opens in geopandas. What was interrupted is resumed
    by the same command.

    Several slides, folders, patterns in quotes, or a CSV table (columns path, mpp, model, ...) go into a folder: one
    result per slide under its own relative path, and report.json. A slide that fails stops no other; those that are
    done are not done again; several processes and machines may share one output folder. The exit code is 9 when any
    slide failed.

    \b
    Examples:
      wsipipe segment slide.svs -o cells.geojson
      wsipipe segment slide.svs -o cells.parquet -o cells.geojson.gz --overlay cells.png
      wsipipe segment region.png --mpp 0.25 --tissue none -o cells.geojson
      wsipipe segment slide.svs -o cells.geojson --bounds 10000,8000,14096,12096
      wsipipe segment slides/ -o out/
      wsipipe segment slides/ -o out/ --types types.json
      wsipipe segment cohort.csv -o out/ --devices cuda:0,cuda:1 --workers 8
      wsipipe segment 'slides/**/*.svs' -o out/ --scheduler tcp://head-node:8786
    """
    from wsipipe.segmentation.job import SegmentJob

    like = SegmentJob(
        source=slides[0],
        outputs=tuple(map(Path, outputs)),
        model=model,
        bounds=bounds,
        overlay=overlay,
        force=force,
        overwrite=overwrite,
        slide=collect(SlideSettings, options, config),
        tissue=collect(TissueSettings, options, config),
        grid=collect(GridSettings, options, config),
        cells=collect(CellSettings, options, config),
        run=collect(RunSettings, options, config),
        export=collect(ExportSettings, options, config),
        cluster=collect(ClusterSettings, options, config),
        stain=collect(StainSettings, options, config),
        types=collect(TypeSettings, options, config),
    )
    folder = _folder(slides, outputs)
    if folder is None:
        return _one(like, dry_run, _reported(like) if report else None)
    if overlay:
        raise SettingsError(f"--overlay {overlay} is one file; for pictures of all slides give --format parquet,png")
    from wsipipe.cli.batch import run_many
    from wsipipe.segmentation.batch import BatchJob

    code = run_many(BatchJob(slides, folder, like, collect(BatchSettings, options, config)), dry_run)
    if report and not dry_run:
        _write_reports(folder)
    return code


def _reported(job: SegmentJob) -> Path:
    """Return the cells that a report is to be made of."""
    found = next((path for path in job.outputs if path.suffix == ".parquet"), None)
    if found is None:
        raise SettingsError("--report is made from the cells as Parquet: add -o NAME.parquet")
    return found


def _write_reports(source: Path) -> None:
    """Write the report of one slide's cells, or of a folder of them."""
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.report import ReportJob, run_report

    with TerminalProgress() as progress:
        pages = run_report(ReportJob(source), progress)
    click.echo(f"wrote {pages[-1]}")


def _folder(slides: tuple[str, ...], outputs: tuple[str, ...]) -> Path | None:
    """Return the output folder of a batch, None for one slide whose output files are named."""
    from wsipipe.formats.exports import file_endings
    from wsipipe.segmentation.slides import is_batch, list_slides

    (first, *more) = outputs
    is_folder = os.path.isdir(first) or first.endswith(("/", os.sep))
    if not is_batch(slides) and (more or not is_folder):
        return None
    if more or (first.endswith(file_endings()) and not is_folder):
        list_slides(slides)  # that there are none at all is the greater surprise
        raise OutputError(f"-o {' -o '.join(outputs)}: several slides need one folder, as in -o out/")
    return Path(first)


def _one(job: SegmentJob, dry_run: bool, reported: Path | None) -> int:
    """Segment one slide, or say what that means."""
    from wsipipe.cli.interrupt import prompt_interrupt
    from wsipipe.cli.notice import show_notice
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.segmentation.run import run_segment

    if dry_run:
        _show_plan(job)
        return 0
    show_notice(job.model)
    with TerminalProgress() as progress, prompt_interrupt(progress.bars.stop):
        result = run_segment(job, progress)
    _show_result(job, result)
    if reported is not None:
        _write_reports(reported)
    return 0


def _show_plan(job: SegmentJob) -> None:
    """Print what a run would do and need."""
    from wsipipe.schedule.progress import Progress
    from wsipipe.segmentation.dry_run import estimate

    for name, value in estimate(job, Progress()):
        click.echo(f"{name:<10} {value}")


def _show_result(job: SegmentJob, result: SegmentResult) -> None:
    """Print the closing lines: cells, density, seconds per stage, bottleneck, outputs."""
    from wsipipe.segmentation.job import STAGES, advice

    if not result.fresh:
        click.echo(f"up to date: {result.cells:,} cells in {_names(job)} (--force runs again)")
        return
    if not (result.tissue_mm2 or result.bad_boxes):
        hint = "--tissue none takes every pixel"
        click.echo(f"no tissue found in {job.source}: wrote an empty result to {_names(job)} ({hint})")
        return
    click.echo(
        f"{result.cells:,} cells in {result.tissue_mm2:.3g} mm² of tissue: {result.density:,.0f} cells/mm², "
        f"{result.wall:.1f} s ({result.wall / max(result.tissue_mm2, 1e-6):.1f} s/mm²)"
    )
    stages = [stage for parts in STAGES.values() for stage in parts]
    spent = [f"{stage} {result.seconds[stage]:.1f}" for stage in stages if result.seconds.get(stage, 0) >= 0.05]
    click.echo(f"seconds: {', '.join(spent)}; {advice(result.bottleneck)}")
    if result.bad_boxes:
        click.echo(
            f"{result.bad_boxes} unreadable areas ({result.bad_share:.2%} of what was analysed) were left out; their "
            f"boxes are in the Parquet file's metadata and in {job.record.name}"
        )
    click.echo(f"wrote {_names(job)}")


def _names(job: SegmentJob) -> str:
    return ", ".join(str(path) for path in job.wanted)
