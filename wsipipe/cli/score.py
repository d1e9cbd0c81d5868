"""``wsipipe score``: which cells stained, and the scores that follow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.cli.results import ANY, FILE, WIDEST, region_name, region_options
from wsipipe.errors import SOME_FAILED
from wsipipe.settings import ScoreSettings, SummariseSettings

if TYPE_CHECKING:
    from wsipipe.pipelines.score import Scored

ROWS = 40
"""Rows of the table in the terminal."""


@click.command(cls=Command)
@click.argument("cells", metavar="CELLS...", nargs=-1, required=True, type=ANY)
@click.option(
    "-o", "--output", required=True, type=ANY, metavar="OUT",
    help="Where the scored cells go: .parquet, or a folder for any number of slides.",
)  # fmt: skip
@click.option(
    "--table", "tables", multiple=True, type=FILE, metavar="OUT",
    help="Numbers of all slides and regions: .csv, .parquet, .xlsx; of one .geojson for QuPath. May be repeated.",
)  # fmt: skip
@click.option(
    "--page", type=ANY, default=None, metavar="HTML",
    help="Page with the histogram, and pictures of cells on both sides of each threshold; or a folder for them.",
)  # fmt: skip
@region_options
@config_option
@options_for(ScoreSettings, SummariseSettings)
def score(
    cells: tuple[Path, ...], output: Path, tables: tuple[Path, ...], page: Path | None, regions: Path | None,
    sheet: Path | None, slide: str, config: Any, **options: Any,
) -> int:  # fmt: skip
    """Tell positive cells of a marker from negative ones, in CELLS that were measured by stain.

    CELLS are .parquet files, or folders of them, which are all compared with the same thresholds.
    `wsipipe measure --add stains` makes the measurements; scoring again, with other thresholds, needs nothing else.
    Classes are derived as in QuPath: a cell of type Tumor becomes Tumor: Positive, or Tumor: 2+.

    \b
      positive share   positive / (positive + negative)
      H-score          100 (n1 + 2 n2 + 3 n3) / n, from 0 to 300; with three thresholds
      Allred           proportion (over 0, 1 %, 10 %, 1/3, 2/3: 1 to 5) + mean intensity of the positive cells
                       (up to 5/3, up to 7/3, above: 1 to 3)

    Cells without the compartment, such as nuclei with no room for a cytoplasm, are counted and not scored. The
    thresholds that the cells' own histogram suggests are always told; look at --page before you trust any.

    \b
    Examples:
      wsipipe measure cells.parquet --slide ki67.svs --add stains --stain-vectors hdab -o measured.parquet
      wsipipe score measured.parquet --marker ki67 -o scored.parquet --page ki67.html --slide ki67.svs
      wsipipe score measured.parquet --marker er --intensity-thresholds 0.2,0.4,0.6 -o scored.parquet --table er.csv
      wsipipe score measured.parquet --marker her2 --compartment cell --regions tumour.geojson -o scored.parquet
      wsipipe score measured/ --regions annotations/ --sheet cohort.csv -o scored/ --table ki67.csv
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.score import ScoreJob, run_score

    job = ScoreJob(
        cells=cells,
        output=output,
        tables=tables,
        page=page,
        regions=regions,
        sheet=sheet,
        slide=slide,
        score=collect(ScoreSettings, options, config),
        summarise=collect(SummariseSettings, options, config),
    )
    with TerminalProgress() as progress:
        done = run_score(job, progress)
    _show(done)
    click.echo(f"wrote {', '.join(map(str, filter(None, (output, *tables, page))))}")
    for name, reason in done.failed:
        click.echo(f"failed: {name}: {reason}", err=True)
    return SOME_FAILED if done.failed else 0


def _show(done: Scored) -> None:
    """Print how many cells stained how, the thresholds, and the scores of each region."""
    counts = ", ".join(f"{grade} {count:,}" for grade, count in done.counts.items() if grade)
    click.echo(f"{done.column} at {_listed(done.thresholds)}: {counts}")
    if unscored := done.counts[""]:
        click.echo(f"{unscored:,} cells lack the compartment, and are not scored")
    told = _listed(done.suggested) if done.suggested else "none, it shows one population (or too few cells)"
    several = len(done.slides) > 1
    click.echo(f"suggested by the histogram{' of all cells' if several else ''}: {told}")
    names = [region_name(row, several) for row in done.rows]
    width = min(WIDEST, max(map(len, names)))
    steps = len(done.thresholds) > 1
    click.echo(f"{'region':<{width}} {'cells':>9} {'positive':>9}  {'95 %':<18}" + (f"{'H':>5} {'Allred':>7}" * steps))
    for name, row in list(zip(names, done.rows))[:ROWS]:
        share, low, high = row["positive_share"], row["positive_share_low"], row["positive_share_high"]
        percent = "-" if share is None else f"{share:.1%}"
        interval = f"{low:.1%} to {high:.1%}" if low == low else "-"
        scored = row["cells"] - row["unscored_cells"]
        line = f"{name[:width]:<{width}} {scored:>9,} {percent:>9}  {interval:<18}"
        if steps and row["h_score"] is not None:
            line += f"{row['h_score']:>5.0f} {row['allred']:>7}"
        click.echo(line.rstrip())
    if len(done.rows) > ROWS:
        click.echo(f"... and {len(done.rows) - ROWS:,} more")


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
