"""``wsipipe tma``: the cores of a tissue microarray."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, collect, options_for
from wsipipe.cli.results import FILE_THERE, area_options
from wsipipe.settings import SlideSettings

if TYPE_CHECKING:
    from wsipipe.analysis.tma import Cores

SIGNS = {"whole": "O", "torn": "/", "missing": "."}
DOUBTFUL = 0.6
"""Confidence under which a core is listed to be looked at."""
LISTED = 12


@click.command(cls=Command)
@click.argument("slide")
@area_options("cores", "a sheet", "grid")
@click.option(
    "--names", type=FILE_THERE, metavar="FILE",
    help="A sheet (.csv: core or row and column, name, ...) that names the cores, or .geojson with corrected ones.",
)  # fmt: skip
@options_for(SlideSettings)
def tma(slide: str, outputs: tuple[Path, ...], overlay: Path | None, names: Path | None, **options: Any) -> None:
    """Find the cores of the tissue microarray on SLIDE, and name them by row and column: A-1, A-2, ...

    Neither diameter nor numbers of rows and columns are asked for; the grid may be turned and bent. Every place of it
    is told: whole, torn (in pieces, or a part of it is gone) or missing, with a confidence from 0 to 1. Open the
    .geojson in QuPath to correct it (move, rename, delete, draw), and give it back with --names, here or to
    `wsipipe summarise --tma`.

    \b
    Examples:
      wsipipe tma array.svs --overlay grid.png
      wsipipe tma array.svs -o cores.geojson -o cores.csv
      wsipipe tma array.svs --names patients.csv -o cores.geojson --overlay grid.png
      wsipipe tma array.svs --names corrected.geojson -o cores.csv
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.tma import TmaJob, run_tma

    job = TmaJob(slide, outputs, overlay, names, collect(SlideSettings, options))
    with TerminalProgress() as progress:
        cores = run_tma(job, progress)
    _show(cores)
    written = [str(path) for path in (*outputs, overlay) if path]
    if written:
        click.echo(f"wrote {', '.join(written)}")


def _show(cores: Cores) -> None:
    """Print the grid, counts, and the cores to look at."""
    table = cores.table
    if (table["column"] > 0).all():
        _show_grid(cores)
    counts = table["status"].value_counts()
    held = ", ".join(f"{int(counts.get(kind, 0))} {kind}" for kind in SIGNS)
    click.echo(f"{len(table)} places of cores, {cores.diameter_um:.0f} µm across: {held}")
    doubtful = table[(table["confidence"] < DOUBTFUL) & ~table["missing"]].sort_values("confidence")
    if len(doubtful):
        shown = ", ".join(f"{row.name_} ({row.confidence:.2f})" for row in _rows(doubtful)[:LISTED])
        more = f" and {len(doubtful) - LISTED} more" if len(doubtful) > LISTED else ""
        click.echo(f"look at: {shown}{more}")


def _rows(table: Any) -> list[Any]:
    return list(table.rename(columns={"name": "name_"}).itertuples())


def _show_grid(cores: Cores) -> None:
    table = cores.table
    columns = range(1, int(table["column"].max()) + 1)
    signs = {(row.row, row.column): SIGNS[row.status] for row in table.itertuples()}
    names = list(dict.fromkeys(table["row"]))
    click.echo("    " + "".join(f"{c:>3}" for c in columns))
    for name in names:
        click.echo(f"{name:>4}" + "".join(f"{signs.get((name, c), ' '):>3}" for c in columns))
    click.echo(f"{SIGNS['whole']} whole   {SIGNS['torn']} torn   {SIGNS['missing']} missing")
