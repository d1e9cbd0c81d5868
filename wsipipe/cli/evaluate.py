"""``wsipipe evaluate``: score a model against annotated images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.datasets import FORMS, dataset_options, spec_of
from wsipipe.cli.options import MODEL, Command, collect, config_option, options_for
from wsipipe.models.zoo import DEFAULT
from wsipipe.settings import CellSettings, EvaluateSettings, GridSettings, RunSettings

if TYPE_CHECKING:
    from wsipipe.evaluate.tuning import Trial

NOT_HERE = ("expand_um", "block", "workers", "max_bad_tiles", "readers")
SHOWN = 10


@click.command(cls=Command)
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "out", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Folder of the results.",
)  # fmt: skip
@click.option("--model", default=DEFAULT, show_default=True, help=MODEL)
@dataset_options
@click.option(
    "--part", type=click.Choice(("train", "val", "test")), default="test", show_default=True,
    help="Part of the split to score; without --split, all images are scored.",
)  # fmt: skip
@click.option(
    "--groups", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="CSV",
    help="Images or patients and their groups, such as organs (two columns): scores of each group too.",
)  # fmt: skip
@click.option(
    "--predictions", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
    help="Score instance maps that another tool made (IMAGE.png, .tif, .npy or .mat) in place of a model.",
)  # fmt: skip
@click.option("--tune", "tuning", is_flag=True, help="Choose the thresholds on these images; do not score.")
@config_option
@options_for(EvaluateSettings, GridSettings, CellSettings, RunSettings, exclude=NOT_HERE)
def evaluate(
    dataset: Path,
    out: Path,
    model: str,
    part: str,
    groups: Path | None,
    predictions: Path | None,
    tuning: bool,
    config: Any,
    **options: Any,
) -> None:
    """Score a model, or another tool's predictions, on DATASET, an annotated set.

    Images go through the very code that segments slides. The report is printed and written to scores.md; scores.json,
    images.csv, images.parquet, the label maps and pictures of the best and worst images lie beside it. Nuclei are
    scored as points too (HoVer-Net's F_d), and by their size (sizes.csv). Where labels and model have cell types of
    the same names, their scores (F_c, mPQ+, mPQ) and a confusion table are added (types.csv).

    \b
    Examples:
      wsipipe evaluate kumar --mpp 0.25 -o results
      wsipipe evaluate CoNSeP/Test --classes other,inflammatory,epithelial,epithelial,spindle,spindle,spindle \\
          --model typed.safetensors -o results
      wsipipe evaluate tnbc --split tnbc/split.json --part val --patient '(\\d+)_' --tune -o tuned
      wsipipe evaluate tnbc --mpp 0.25 --predictions stardist/ -o results
      wsipipe evaluate tnbc --mpp 0.25 --model run/model.safetensors --ttt-steps 10 -o results
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.errors import SettingsError
    from wsipipe.pipelines.evaluate import EvaluateJob, run_evaluate, run_tune
    from wsipipe.pipelines.predictions import score_predictions

    job = EvaluateJob(
        spec_of(str(dataset), options, default_split=""),
        out,
        part,
        model,
        collect(GridSettings, options, config),
        collect(CellSettings, options, config),
        collect(RunSettings, options, config),
        collect(EvaluateSettings, options, config),
        groups,
    )
    if predictions and (tuning or groups or job.scoring.ttt_steps):
        raise SettingsError("--predictions are scored as they are; leave --tune, --groups and --ttt-steps out")
    with TerminalProgress() as progress:
        if predictions:
            result: Any = score_predictions(job, predictions, progress)
        else:
            result = run_tune(job, progress) if tuning else run_evaluate(job, progress)
    if isinstance(result, list):
        _show_trials(result)
        click.echo(f"wrote {out / 'tune.csv'}")
    else:
        click.echo(result.markdown)
        click.echo(f"wrote {out / 'scores.md'} and what lies beside it")


evaluate.help = f"{evaluate.help}\n{FORMS}"


def _show_trials(trials: list[Trial]) -> None:
    """Print the best rules as a table, and how to ask for them."""
    names = ("PQ", "DQ", "SQ", "AJI", "dice")
    click.echo("threshold  marker  min area µm²  min probability  " + "  ".join(f"{name:>5}" for name in names))
    for trial in trials[:SHOWN]:
        rules = trial.rules
        values = "  ".join(f"{trial.scores[name]:5.3f}" for name in names)
        limits = f"{rules.min_area_um2:12g}  {rules.min_probability:15g}"
        click.echo(f"{rules.threshold:9g}  {rules.marker_threshold:6g}  {limits}  {values}")
    best = trials[0].rules
    click.echo(
        f"best of {len(trials)}: --threshold {best.threshold:g} --marker-threshold {best.marker_threshold:g} "
        f"--min-area-um2 {best.min_area_um2:g} --min-probability {best.min_probability:g}"
    )
