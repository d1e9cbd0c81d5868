"""``wsipipe fit``: train a segmentation model on annotated images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from wsipipe.cli.datasets import FORMS, dataset_options, spec_of, specs_in
from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.errors import SettingsError
from wsipipe.settings import AugmentSettings, FitSettings, LoopSettings


@click.command(cls=Command)
@click.argument("datasets", metavar="[DATASET]...", nargs=-1)
@click.option(
    "-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder of the run."
)
@dataset_options
@click.option("--root", default=".", metavar="DIR", type=click.Path(path_type=Path), help="Where relative paths start.")
@config_option
@options_for(FitSettings, LoopSettings, AugmentSettings, exclude=("loop", "augment"))
def fit(datasets: tuple[str, ...], output: Path, root: Path, config: Any, **options: Any) -> None:
    """Fit a head (and, unfrozen or from random weights, the backbone) on annotated images.

    Several sets, each with its own form, resolution and weight, stand in a TOML file as [[datasets]]. Cell types are
    learned when the labels have at least two. The model file that comes out is what `wsipipe segment --model` takes.
    The same command resumes an interrupted run.

    \b
    Examples:
      wsipipe fit my-set --mpp 0.25 -o run/
      wsipipe fit my-set --backbone cmd-t --head light -o run/
      wsipipe fit my-set --backbone cmd-t --reuse-head --unfreeze --lr 3e-4 --epochs 30 -o mine/
      wsipipe fit my-set --backbone cmd-t --head light --cache-features 4 --shots 5 -o few/
      wsipipe fit pannuke --patient '(fold.)' --split folds.json --validate-every 500 -o typed/
      wsipipe fit --config workflows/default-model/fit.toml --root data -o run/
      wsipipe segment slide.svs --model run/model.safetensors -o cells.geojson
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.fit import FitJob, run_fit

    specs = [*(spec_of(path, options) for path in datasets), *specs_in(config)]
    if not specs:
        raise SettingsError("nothing to fit on; give a DATASET folder, or a --config with [[datasets]]")
    settings = dataclasses.replace(
        collect(FitSettings, options, config),
        loop=collect(LoopSettings, options, config),
        augment=collect(AugmentSettings, options, config),
    )
    with TerminalProgress() as progress:
        try:
            model = run_fit(FitJob(tuple(specs), root, output, settings), progress)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("the same command resumes it") from stop
    click.echo(f"wrote {model}; use it with: wsipipe segment SLIDE --model {model} -o cells.geojson")


fit.help = f"{fit.help}\n{FORMS}"
