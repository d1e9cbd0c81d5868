"""``wsipipe classify``: the types of cells, after a few labelled ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.cli.results import ANY, FILE, corrections_option
from wsipipe.errors import SOME_FAILED
from wsipipe.settings import ClassifySettings

if TYPE_CHECKING:
    from wsipipe.analysis.classify import Scores
    from wsipipe.pipelines.classify import Classified

LISTED = 8


@click.command(cls=Command)
@click.argument("cells", metavar="CELLS...", nargs=-1, required=True, type=ANY)
@click.option(
    "-o", "--output", type=ANY, default=None, metavar="OUT", help="Where the typed cells go: .parquet, or a folder."
)
@click.option(
    "--fit", "labels", type=ANY, default=None, metavar="LABELS",
    help="What says the class of some of CELLS: a file, or a folder with NAME.geojson for slides that have labels.",
)  # fmt: skip
@click.option(
    "--also", type=(FILE, FILE), multiple=True, metavar="CELLS LABELS", help="Labelled cells of another slide."
)
@click.option("--model", type=FILE, default=None, metavar="FILE", help="A saved classifier, in place of --fit.")
@click.option("--save", type=FILE, default=None, metavar="FILE", help="Keep the fitted classifier: .json.")
@click.option(
    "--questions", type=ANY, default=None, metavar="OUT",
    help="The least certain cells of all slides, to be given a class in QuPath: .geojson, or a folder.",
)  # fmt: skip
@corrections_option
@config_option
@options_for(ClassifySettings)
def classify(
    cells: tuple[Path, ...],
    output: Path | None,
    labels: Path | None,
    also: tuple[tuple[Path, Path], ...],
    model: Path | None,
    save: Path | None,
    questions: Path | None,
    corrections: str,
    config: Any,
    **options: Any,
) -> int:
    """Give every cell in CELLS a class, after a few that were labelled; nothing is segmented again.

    CELLS are .parquet files, or folders of them. LABELS is GeoJSON from QuPath or a .parquet. In QuPath, import the
    cells, set the class of some (of detections; or draw annotations or points of a class over them), and export the
    objects; or label in the browser (`wsipipe label`). The classifier is a logistic regression of the measurements;
    `wsipipe measure --add neighbours,ring,texture` gives it more to go by. Its scores are of cells on slides, or of one
    slide in regions, that it was not fitted on. Labelled cells keep their class.

    --questions tells which cells to label next. They are annotations without a class; give them one, export them, and
    add them to LABELS. The saved classifier goes to `wsipipe segment --types`.

    \b
    Examples:
      wsipipe classify cells.parquet --fit labelled.geojson -o typed.parquet --save types.json
      wsipipe classify other.parquet --model types.json -o typed.parquet
      wsipipe classify out/ --fit labels/ --save types.json --questions next/
      wsipipe classify out/ --model types.json -o typed/
      wsipipe classify a.parquet --fit a.geojson --also b.parquet b.geojson --save types.json
      wsipipe convert typed.parquet -o typed.geojson.gz
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.classify import ClassifyJob, run_classify

    settings = collect(ClassifySettings, options, config)
    job = ClassifyJob(cells, output, model, labels, also, save, questions, settings, corrections)
    with TerminalProgress() as progress:
        done = run_classify(job, progress)
    _show(done)
    written = [str(path) for path in (output, save, questions) if path]
    click.echo(f"wrote {', '.join(written)}")
    for name, reason in done.failed:
        click.echo(f"failed: {name}: {reason}", err=True)
    return SOME_FAILED if done.failed else 0


def _show(done: Classified) -> None:
    """Print how well left-out cells were classified, and how many cells each class has."""
    if done.labelled:
        counts = ", ".join(f"{name} {count:,}" for name, count in done.labelled.items())
        total, columns = sum(done.labelled.values()), len(done.classifier.columns)
        click.echo(f"fitted on {columns} measurements of {total:,} labelled cells: {counts}")
        show_scores(done.scores)
    if done.questions:
        asked = ", ".join(f"{name} {count:,}" for name, count in list(done.questions.items())[:LISTED])
        more = f", and {len(done.questions) - LISTED:,} slides more" if len(done.questions) > LISTED else ""
        click.echo(f"{sum(done.questions.values()):,} cells to ask for: {asked}{more}")
    if done.cells:
        click.echo("all cells: " + ", ".join(f"{name} {count:,}" for name, count in done.cells.items()))


def show_scores(scores: Scores | None) -> None:
    """Print recall and precision of each class, on cells that were left out."""
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
