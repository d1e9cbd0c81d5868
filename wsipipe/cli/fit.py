"""``wsipipe fit``: train a segmentation model on annotated images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.cli.types import MppType
from wsipipe.errors import SettingsError
from wsipipe.settings import AugmentSettings, FitSettings, LoopSettings


@click.command(cls=Command)
@click.argument("datasets", metavar="[DATASET]...", nargs=-1)
@click.option(
    "-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder of the run."
)
@click.option(
    "--mpp", "data_mpp", type=MppType(), default=0.25, show_default=True,
    help="Resolution of the images; `nuclei` estimates it from the size of the annotated nuclei.",
)  # fmt: skip
@click.option("--patient", default="(.+)", show_default=True, help="Regular expression: the patient in a file name.")
@click.option("--split", default="", metavar="JSON", help="Patients or files of train, val and test.")
@click.option("--root", default=".", metavar="DIR", type=click.Path(path_type=Path), help="Where relative paths start.")
@config_option
@options_for(FitSettings, LoopSettings, AugmentSettings, exclude=("loop", "augment"))
def fit(
    datasets: tuple[str, ...],
    output: Path,
    data_mpp: float | str,
    patient: str,
    split: str,
    root: Path,
    config: Any,
    **options: Any,
) -> None:
    """Fit a head (and, unfrozen or from random weights, the backbone) on annotated images.

    A DATASET is a folder with images/ and labels/ (instance maps of the same names). Several sets, each with its own
    resolution and weight, stand in a TOML file as [[datasets]]. The model file that comes out is what
    `wsipipe segment --model` takes. The same command resumes an interrupted run.

    \b
    Examples:
      wsipipe fit my-set --mpp 0.25 -o run/
      wsipipe fit --config workflows/default-model/fit.toml --root data -o run/
      wsipipe segment slide.svs --model run/model.safetensors -o cells.geojson
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.labels import DatasetSpec
    from wsipipe.pipelines.fit import FitJob, run_fit

    specs = [DatasetSpec(path, data_mpp, patient, split) for path in datasets]
    known = {f.name for f in dataclasses.fields(DatasetSpec)}
    for table in config.datasets:
        if unknown := set(table) - known:
            expected = ", ".join(sorted(known))
            raise SettingsError(f"{config.path} [[datasets]]: unknown key {min(unknown)!r}; expected {expected}")
        beside = Path(config.path).parent / str(table.get("split", ""))
        specs.append(DatasetSpec(**table | ({"split": str(beside.resolve())} if beside.is_file() else {})))
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
