"""``wsipipe measure``: the numbers of cells, anew and more."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.cli.results import ANY, WIDEST, corrections_option
from wsipipe.errors import SOME_FAILED
from wsipipe.settings import MeasureSettings, SlideSettings, StainSettings

if TYPE_CHECKING:
    from wsipipe.segmentation.measuring import Measured
    from wsipipe.segmentation.outcome import Report

ROWS = 60
"""Rows of the closing table; failures come first."""
DECILE = re.compile(r"_od_p\d0$")
"""Columns that are too many for the table in the terminal."""


@click.command(cls=Command)
@click.argument("cells", metavar="CELLS...", nargs=-1, required=True, type=ANY)
@click.option(
    "--slide", default="", metavar="SLIDE",
    help="The slide that the cells lie on; of several a folder, pattern, .csv or QuPath project; default: where the "
    "run record says.",
)  # fmt: skip
@click.option(
    "-o", "--output", required=True, type=ANY, metavar="OUT",
    help="Where the cells go: .parquet, or a folder for any number of slides.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Measure again what is up to date in a folder.")
@corrections_option
@config_option
@options_for(MeasureSettings, StainSettings, SlideSettings)
def measure(
    cells: tuple[Path, ...], slide: str, output: Path, force: bool, corrections: str, config: Any, **options: Any
) -> int:
    """Measure the cells in CELLS on their slides.

    CELLS are .parquet files made by `wsipipe segment`, or .geojson exported by QuPath with cells that were edited,
    drawn or found by other means; or folders of them. Size, shape and stain are always measured; --add has more:

    \b
      texture      Haralick's 13 numbers of the haematoxylin inside the nucleus (pip install '.[texture]')
      neighbours   distance to the nearest cell, and how many lie within --neighbours-um
      quality      0 fine, 1 glass, 2 out of focus, 3 pen, 4 fold, 5 bubble, 6 dust; blur in µm (`wsipipe quality`)
      ring         stain in a ring of --ring-um around the nucleus, which other nuclei are left out of
      stains       mean, maximum and deciles of each stain in nucleus, cytoplasm (that ring, or the expanded cell
                   without its nucleus) and whole cell, which `wsipipe score` goes by

    Of several slides none stops the others. What was measured before from the same cells, slide and settings stays as
    it is, so the same command goes on after an interrupt; OUT/report.json tells what became of each.

    \b
    Examples:
      wsipipe measure edited.geojson --slide slide.svs -o cells.parquet
      wsipipe measure cells.parquet -o more.parquet --add neighbours,ring
      wsipipe measure cells.parquet --slide ki67.svs -o stained.parquet --add stains --stain-vectors hdab
      wsipipe measure out/ -o measured/ --add stains,quality
      wsipipe measure exported/ --slide slides/ -o measured/
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.measure import ManyJob, cells_files, measure_many, slide_for
    from wsipipe.segmentation.measuring import MeasureJob, run_measure
    from wsipipe.segmentation.results import is_many

    like = MeasureJob(
        cells=cells[0],
        slide=slide,
        output=output,
        measure=collect(MeasureSettings, options, config),
        slide_settings=collect(SlideSettings, options, config),
        corrections=corrections,
        stain=collect(StainSettings, options, config),
    )
    with TerminalProgress() as progress:
        if is_many(cells):
            report = measure_many(ManyJob(cells, slide, output, like, force), progress)
        else:
            (name,) = cells_files(cells)
            done = run_measure(replace(like, slide=slide_for(cells[0], name, slide)), progress)
    if is_many(cells):
        _show_many(report)
        return SOME_FAILED if report.failed else 0
    _show(done, output)
    return 0


def _show(done: Measured, output: Path) -> None:
    """Print the spread of what was measured of one slide."""
    from wsipipe.segmentation.measuring import totals

    for line in done.doubts:
        click.echo(f"warning: {line}", err=True)
    click.echo(f"{'':<38}{'5 %':>10}{'median':>10}{'95 %':>10}")
    shown = tuple(name for name in done.columns[2:] if not DECILE.search(name))
    for name, low, middle, high in totals(output, shown):
        if middle == middle:  # a stain that the slide does not have is NaN
            click.echo(f"{name:<38}{low:>10.4g}{middle:>10.4g}{high:>10.4g}")
    click.echo(f"{done.cells:,} cells: wrote {output}")


def _show_many(report: Report) -> None:
    """Print what became of each slide, failures first."""
    rows = sorted(report.outcomes, key=lambda o: (o.status != "failed", o.name))
    width = min(WIDEST, max(len(o.name) for o in rows))
    click.echo(f"{'slide':<{width}}  {'status':<8} {'cells':>9} {'s':>8}  note")
    for row in rows[:ROWS]:
        name = row.name if len(row.name) <= width else f"…{row.name[1 - width :]}"
        cells = "" if row.cells is None else f"{row.cells:,}"
        seconds = f"{row.seconds:.1f}" if row.seconds else ""
        notes = "; ".join(filter(None, (row.reason, *row.warnings)))
        click.echo(f"{name:<{width}}  {row.status:<8} {cells:>9} {seconds:>8}  {notes}".rstrip())
    if len(rows) > ROWS:
        click.echo(f"... and {len(rows) - ROWS:,} more in {report.path}")
    click.echo(", ".join(f"{count:,} {status}" for status, count in report.counts.items()) + f"; see {report.path}")
