"""``wsipipe score``: which cells stained, and the scores that follow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.settings import ScoreSettings, SummariseSettings

if TYPE_CHECKING:
    from wsipipe.pipelines.score import Scored

FILE = click.Path(path_type=Path, dir_okay=False)
WIDEST = 40


@click.command(cls=Command)
@click.argument("cells", metavar="CELLS", type=FILE)
@click.option("-o", "--output", required=True, type=FILE, metavar="OUT", help="Where the scored cells go: .parquet.")
@click.option(
    "--table", "tables", multiple=True, type=FILE, metavar="OUT",
    help="Numbers of the slide and its regions: .csv, .parquet, .xlsx; .geojson for QuPath. May be repeated.",
)  # fmt: skip
@click.option(
    "--page", type=FILE, default=None, metavar="HTML",
    help="Page with the histogram, and pictures of cells on both sides of each threshold.",
)  # fmt: skip
@click.option(
    "--regions", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=None, metavar="FILE",
    help="Annotations exported by QuPath (.geojson): scores for each.",
)  # fmt: skip
@click.option("--slide", default="", metavar="SLIDE", help="The slide, where it is not where the run record says.")
@config_option
@options_for(ScoreSettings, SummariseSettings)
def score(
    cells: Path, output: Path, tables: tuple[Path, ...], page: Path | None, regions: Path | None, slide: str,
    config: Any, **options: Any,
) -> None:  # fmt: skip
    """Tell positive cells of a marker from negative ones, in CELLS (.parquet) that were measured by stain.

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
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.score import ScoreJob, run_score

    job = ScoreJob(
        cells=cells,
        output=output,
        tables=tables,
        page=page,
        regions=regions,
        slide=slide,
        score=collect(ScoreSettings, options, config),
        summarise=collect(SummariseSettings, options, config),
    )
    with TerminalProgress() as progress:
        done = run_score(job, progress)
    _show(done)
    click.echo(f"wrote {', '.join(map(str, filter(None, (output, *tables, page))))}")


def _show(done: Scored) -> None:
    """Print how many cells stained how, the thresholds, and the scores of each region."""
    counts = ", ".join(f"{grade} {count:,}" for grade, count in done.counts.items() if grade)
    click.echo(f"{done.column} at {_listed(done.thresholds)}: {counts}")
    if unscored := done.counts[""]:
        click.echo(f"{unscored:,} cells lack the compartment, and are not scored")
    told = _listed(done.suggested) if done.suggested else "none, it shows one population (or too few cells)"
    click.echo(f"suggested by the histogram: {told}")
    width = min(WIDEST, max(len(row["region"]) for row in done.rows))
    steps = len(done.thresholds) > 1
    click.echo(f"{'region':<{width}} {'cells':>9} {'positive':>9}  {'95 %':<18}" + (f"{'H':>5} {'Allred':>7}" * steps))
    for row in done.rows:
        share, low, high = row["positive_share"], row["positive_share_low"], row["positive_share_high"]
        percent = "-" if share is None else f"{share:.1%}"
        interval = f"{low:.1%} to {high:.1%}" if low == low else "-"
        scored = row["cells"] - row["unscored_cells"]
        line = f"{row['region'][:width]:<{width}} {scored:>9,} {percent:>9}  {interval:<18}"
        if steps and row["h_score"] is not None:
            line += f"{row['h_score']:>5.0f} {row['allred']:>7}"
        click.echo(line.rstrip())


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
