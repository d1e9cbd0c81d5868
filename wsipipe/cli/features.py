"""``wsipipe features``: what the network makes of a slide's tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.settings import FeatureSettings, GridSettings, RunSettings, SlideSettings, TissueSettings

NOT_OF_FEATURES = ("block", "workers", "engine", "readers")


@click.command(cls=Command)
@click.argument("slide", metavar="SLIDE")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUT",
    help="Where the features go: .h5 (Trident, CLAM) or .zarr.",
)  # fmt: skip
@click.option("--model", default="cmd-t", show_default=True, help="Shipped model, or a .safetensors file.")
@click.option("--force", is_flag=True, help="Run again even if the output is there and up to date.")
@click.option("--overwrite", is_flag=True, help="Replace what stands at the output even if it is of another slide.")
@config_option
@options_for(FeatureSettings, SlideSettings, TissueSettings)
@options_for(GridSettings, exclude=("overlap",))
@options_for(RunSettings, exclude=NOT_OF_FEATURES)
def features(slide: str, output: Path, model: str, force: bool, overwrite: bool, config: Any, **options: Any) -> None:
    """Write a vector of features for every tissue tile of SLIDE, for slide-level models.

    SLIDE is a whole-slide image or a store made by `wsipipe tile`. The .h5 has `features` (n, D) and `coords` (n, 2),
    as Trident and CLAM write and read them. The model may also be a backbone without a head. What was interrupted is
    resumed by the same command.

    \b
    Examples:
      wsipipe features slide.svs -o slide.h5
      wsipipe features slide.svs -o slide.h5 --pool both --overlap 64
      wsipipe features slide.svs -o slide.zarr --model my-backbone.safetensors
    """
    from wsipipe.cli.notice import show_notice
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.features import FeaturesJob, run_features

    job = FeaturesJob(
        source=slide,
        output=output,
        model=model,
        force=force,
        overwrite=overwrite,
        features=collect(FeatureSettings, options, config),
        slide=collect(SlideSettings, options, config),
        tissue=collect(TissueSettings, options, config),
        grid=collect(GridSettings, options, config),
        run=collect(RunSettings, options, config),
    )
    show_notice(model)
    with TerminalProgress() as progress:
        try:
            done = run_features(job, progress)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("the same command resumes it") from stop
    if not done.fresh:
        click.echo(f"up to date: {done.tiles:,} tiles in {output} (--force runs again)")
        return
    if done.bad:
        click.echo(
            f"warning: {done.bad} areas could not be read: seen as background; their boxes are in {output}",
            err=True,
        )
    click.echo(f"{done.tiles:,} tiles, {done.width} features each: wrote {output}")
