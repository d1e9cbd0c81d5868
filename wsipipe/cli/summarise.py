"""``wsipipe summarise``: the numbers of regions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.cli.results import FILE, FILE_THERE, THERE, WIDEST, region_name, region_options
from wsipipe.errors import SOME_FAILED
from wsipipe.settings import HotSpotSettings, SummariseSettings

if TYPE_CHECKING:
    from wsipipe.pipelines.summarise import Summarised

ROWS = 40
"""Rows of the table in the terminal."""


@click.command(cls=Command)
@click.argument("cells", metavar="CELLS...", nargs=-1, required=True, type=THERE)
@click.option(
    "-o", "--output", "outputs", required=True, multiple=True, type=FILE,
    metavar="OUT", help="Where the table goes: .parquet, .csv, .xlsx; .geojson for QuPath. May be repeated.",
)  # fmt: skip
@region_options
@click.option(
    "--measurement", "measurements", multiple=True, metavar="NAME",
    help="Column of the cells to sum up, may be repeated; default: area_um2 and the stain of nuclei.",
)  # fmt: skip
@click.option("--tma", is_flag=True, help="Find the cores of a microarray: a row each. See `wsipipe tma`.")
@click.option(
    "--names", type=FILE_THERE, default=None, metavar="FILE",
    help="With --tma: a sheet (.csv) that names the cores, or .geojson with corrected ones.",
)  # fmt: skip
@config_option
@options_for(HotSpotSettings, SummariseSettings)
def summarise(
    cells: tuple[Path, ...], outputs: tuple[Path, ...], regions: Path | None, measurements: tuple[str, ...],
    sheet: Path | None, slide: str, tma: bool, names: Path | None, config: Any, **options: Any,
) -> int:  # fmt: skip
    """Sum up the cells of every region of every slide: one row each, ready for statistics.

    CELLS are .parquet files made by `wsipipe segment`, or folders of them. A row holds area, counts, densities and
    shares (all cells, each type, positive ones) with 95 % intervals by a bootstrap over fields of 0.25 mm², mean,
    median and deciles of measurements, and distances between types. With fewer than 8 fields there is no interval.

    A cell belongs to every region that holds its centre, nested ones too; not to one in whose hole it lies. The first
    row of a slide is all of its analysed tissue. --regions only counts what was found: to find cells in drawn regions
    alone, give them to `wsipipe segment --tissue`, which merges them into the analysed area.

    \b
    Examples:
      wsipipe summarise cells.parquet --regions annotations.geojson -o regions.csv
      wsipipe summarise cells.parquet --regions annotations.geojson -o measured.geojson
      wsipipe summarise out/ --regions annotations/ --sheet cohort.csv -o cohort.parquet
      wsipipe summarise cells.parquet --tma --names patients.csv -o cores.csv
      wsipipe summarise cells.parquet --hot-spots 3 --hot-spot-area 0.25 -o spots.geojson
      wsipipe summarise cells.parquet -o tissue.csv --measurement area_um2 --measurement eccentricity
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.summarise import SummariseJob, run_summarise

    job = SummariseJob(
        cells=cells,
        outputs=outputs,
        regions=regions,
        sheet=sheet,
        slide=slide,
        measurements=measurements,
        tma=tma,
        names=names,
        hot_spots=collect(HotSpotSettings, options, config),
        settings=collect(SummariseSettings, options, config),
    )
    with TerminalProgress() as progress:
        done = run_summarise(job, progress)
    _show(done)
    click.echo(f"{len(done.rows):,} rows of {done.slides:,} slides: wrote {', '.join(map(str, outputs))}")
    for name, reason in done.failed:
        click.echo(f"failed: {name}: {reason}", err=True)
    return SOME_FAILED if done.failed else 0


def _show(done: Summarised) -> None:
    """Print area, cells and density of each region."""
    several = done.slides > 1
    names = [region_name(row, several) for row in done.rows]
    width = min(WIDEST, max(map(len, names), default=0))
    click.echo(f"{'region':<{width}} {'mm²':>9} {'cells':>10} {'cells/mm²':>10}  95 %")
    for name, row in list(zip(names, done.rows))[:ROWS]:
        area, density = row["area_mm2"], row["cells_per_mm2"]
        low, high = row["cells_per_mm2_low"], row["cells_per_mm2_high"]
        interval = f"{low:,.0f} to {high:,.0f}" if low == low else "-"
        mm2, per_mm2 = (f"{area:.4g}", f"{density:,.0f}") if area else ("", "")
        click.echo(f"{name[:width]:<{width}} {mm2:>9} {row['cells']:>10,} {per_mm2:>10}  {interval}")
    if len(done.rows) > ROWS:
        click.echo(f"... and {len(done.rows) - ROWS:,} more")
