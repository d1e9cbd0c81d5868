"""``wsipipe classify``: the types of cells, after a few labelled ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.settings import ClassifySettings

if TYPE_CHECKING:
    from wsipipe.classify import Scores
    from wsipipe.pipelines.classify import Classified

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Command)
@click.argument("cells", metavar="CELLS", type=FILE)
@click.option("-o", "--output", type=FILE, default=None, metavar="OUT", help="Where the typed cells go: .parquet.")
@click.option(
    "--fit", "labels", type=FILE, default=None, metavar="LABELS", help="What says the class of some of CELLS."
)
@click.option(
    "--also", type=(FILE, FILE), multiple=True, metavar="CELLS LABELS", help="Labelled cells of another slide."
)
@click.option("--model", type=FILE, default=None, metavar="FILE", help="A saved classifier, in place of --fit.")
@click.option("--save", type=FILE, default=None, metavar="FILE", help="Keep the fitted classifier: .json.")
@config_option
@options_for(ClassifySettings)
def classify(
    cells: Path,
    output: Path | None,
    labels: Path | None,
    also: tuple[tuple[Path, Path], ...],
    model: Path | None,
    save: Path | None,
    config: Any,
    **options: Any,
) -> None:
    """Give every cell in CELLS (.parquet) a class, after a few that were labelled; nothing is segmented again.

    LABELS is GeoJSON from QuPath or a .parquet. In QuPath, import the cells, set the class of some (of detections; or
    draw annotations or points of a class over them), and export the objects. The classifier is a logistic regression
    of the measurements; `wsipipe measure --add neighbours,ring,texture` gives it more to go by. Its scores are of cells
    in regions, or on slides, that it was not fitted on. Labelled cells keep their class.

    \b
    Examples:
      wsipipe classify cells.parquet --fit labelled.geojson -o typed.parquet --save types.json
      wsipipe classify other.parquet --model types.json -o typed.parquet
      wsipipe classify a.parquet --fit a.geojson --also b.parquet b.geojson --save types.json
      wsipipe convert typed.parquet -o typed.geojson.gz
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.classify import ClassifyJob, run_classify

    pairs = ([(cells, labels)] if labels else []) + list(also)
    job = ClassifyJob(cells, output, model, tuple(pairs), save, collect(ClassifySettings, options, config))
    with TerminalProgress() as progress:
        done = run_classify(job, progress)
    _show(done)
    written = [str(path) for path in (output, save) if path]
    click.echo(f"wrote {', '.join(written)}")


def _show(done: Classified) -> None:
    """Print how well left-out cells were classified, and how many cells each class has."""
    if done.labelled:
        counts = ", ".join(f"{name} {count:,}" for name, count in done.labelled.items())
        total, columns = sum(done.labelled.values()), len(done.classifier.columns)
        click.echo(f"fitted on {columns} measurements of {total:,} labelled cells: {counts}")
        _show_scores(done.scores)
    if done.cells:
        click.echo("all cells: " + ", ".join(f"{name} {count:,}" for name, count in done.cells.items()))


def _show_scores(scores: Scores | None) -> None:
    if scores is None:
        click.echo("scores: none; the labelled cells lie in one place, so that none could be left out")
        return
    kinds = scores.classes
    click.echo(f"scores of cells left out ({scores.folds} folds over {scores.regions} {scores.kind}):")
    width = max(12, *(len(name) + 2 for name in kinds))
    click.echo(f"{'':<{width}}{'recall':>8}{'precision':>11}   found as {', '.join(kinds)}")
    for i, name in enumerate(kinds):
        row = " ".join(f"{n:>6,}" for n in scores.confusion[i])
        click.echo(f"{name:<{width}}{scores.recall[i]:>8.3f}{scores.precision[i]:>11.3f}   {row}")
    click.echo(f"balanced accuracy {scores.balanced_accuracy:.3f} (guessing: {1 / len(kinds):.3f})")
