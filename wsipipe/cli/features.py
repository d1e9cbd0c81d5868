"""``wsipipe features``: what the network makes of a slide's tiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.errors import SOME_FAILED
from wsipipe.settings import FeatureSettings, GridSettings, RunSettings, SlideSettings, TissueSettings

if TYPE_CHECKING:
    from wsipipe.pipelines.features import FeaturesJob

NOT_OF_FEATURES = ("block", "workers", "engine", "readers")


@click.command(cls=Command)
@click.argument("sources", metavar="SLIDE...", nargs=-1, required=True)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUT",
    help="Where the features go: .h5 (Trident, CLAM) or .zarr; of several slides, a folder.",
)  # fmt: skip
@click.option("--model", help="Shipped model, or a .safetensors file; default: cmd-t, or with --encoder that itself.")
@click.option(
    "--suffix",
    type=click.Choice([".h5", ".zarr"]),
    default=".h5",
    show_default=True,
    help="Form of the files of several slides.",
)
@click.option(
    "--cells", type=click.Path(path_type=Path, exists=True), metavar="CELLS",
    help="Features of cells in place of tiles: a .parquet that `wsipipe segment` wrote; of several slides, its folder.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Run again even if the output is there and up to date.")
@click.option("--overwrite", is_flag=True, help="Replace what stands at the output even if it is of another slide.")
@config_option
@options_for(FeatureSettings, SlideSettings, TissueSettings)
@options_for(GridSettings, exclude=("overlap",))
@options_for(RunSettings, exclude=NOT_OF_FEATURES)
def features(
    sources: tuple[str, ...],
    output: Path,
    model: str | None,
    suffix: str,
    cells: Path | None,
    force: bool,
    overwrite: bool,
    config: Any,
    **options: Any,
) -> int:
    """Write a vector of features for every tissue tile of each SLIDE, for slide-level models.

    SLIDE is a whole-slide image or a store made by `wsipipe tile`. The .h5 has `features` (n, D) and `coords` (n, 2),
    as Trident and CLAM write and read them. The model may also be a backbone without a head, or a foundation model
    (--encoder). What was interrupted is resumed by the same command.

    With --cells the rows are those of the cells file, with `cell_id`: a 256 px square around each cell's centre goes
    through the network, at --target-mpp 0.25 of half the width.

    Several slides, folders, patterns or CSV tables go into a folder, a file each, with report.json. A slide that fails
    does not stop the others, and is tried again by the next run; exit code 9 then.

    \b
    Examples:
      wsipipe features slide.svs -o slide.h5
      wsipipe features slide.svs -o slide.h5 --pool both --overlap 64
      wsipipe features slide.svs -o slide.zarr --model my-backbone.safetensors
      wsipipe features slides/ -o features/ --encoder uni
      wsipipe features slides/ -o features/ --encoder uni --cells results/
      wsipipe features a.svs b.svs -o features/ --encoder virchow2=weights/virchow2/ --suffix .zarr
    """
    from wsipipe.cli.notice import show_notice
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.models.zoo import DEFAULT
    from wsipipe.pipelines.features import FeaturesJob, run_features
    from wsipipe.segmentation.slides import is_batch

    asked = collect(FeatureSettings, options, config)
    job = FeaturesJob(
        source=sources[0],
        output=output,
        model=model or ("" if asked.encoder else DEFAULT),
        force=force,
        overwrite=overwrite,
        features=asked,
        slide=collect(SlideSettings, options, config),
        tissue=collect(TissueSettings, options, config),
        grid=collect(GridSettings, options, config),
        run=collect(RunSettings, options, config),
        cells=cells,
    )
    if job.model:
        show_notice(job.model)
    if is_batch(sources):
        return _many(sources, job, suffix)
    with TerminalProgress() as progress:
        try:
            done = run_features(job, progress)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("the same command resumes it") from stop
    what = "cells" if cells else "tiles"
    if not done.fresh:
        click.echo(f"up to date: {done.tiles:,} {what} in {output} (--force runs again)")
        return 0
    if done.bad:
        click.echo(
            f"warning: {done.bad} areas could not be read: seen as background; their boxes are in {output}",
            err=True,
        )
    click.echo(f"{done.tiles:,} {what}, {done.width} features each: wrote {output}")
    return 0


def _many(sources: tuple[str, ...], like: FeaturesJob, suffix: str) -> int:
    """Write the features of several slides; return the exit code."""
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.features_many import REPORT, run_features_many

    with TerminalProgress() as progress:
        done = run_features_many(sources, like.output, like, progress, suffix)
    for one in sorted(done, key=lambda one: (one.status != "failed", one.output)):
        of = "cells" if like.cells else "tiles"
        what = f"{one.tiles:,} {of}, {one.width} features each" if one.width else ""
        bad = f"{one.bad} areas could not be read" if one.bad else ""
        click.echo(f"{one.status:<8} {one.output}  {'; '.join(filter(None, (what, one.reason, bad)))}")
    counts = {status: sum(one.status == status for one in done) for status in ("done", "skipped", "failed")}
    click.echo(", ".join(f"{n:,} {status}" for status, n in counts.items() if n) + f"; see {like.output / REPORT}")
    return SOME_FAILED if counts["failed"] else 0
