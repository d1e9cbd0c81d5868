"""``wsipipe measure``: the numbers of cells, anew and more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.settings import MeasureSettings, SlideSettings, StainSettings

DECILE = re.compile(r"_od_p\d0$")
"""Columns that are too many for the table in the terminal."""


@click.command(cls=Command)
@click.argument("cells", metavar="CELLS", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--slide", required=True, metavar="SLIDE", help="The slide that the cells lie on.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="OUT",
    help="Where the cells go: .parquet.",
)  # fmt: skip
@config_option
@options_for(MeasureSettings, StainSettings, SlideSettings)
def measure(cells: Path, slide: str, output: Path, config: Any, **options: Any) -> None:
    """Measure the cells in CELLS on their slide.

    CELLS is a .parquet made by `wsipipe segment`, or a .geojson exported by QuPath with cells that were edited, drawn
    or found by other means. Size, shape and stain are always measured; --add has more:

    \b
      texture      Haralick's 13 numbers of the haematoxylin inside the nucleus (pip install '.[texture]')
      neighbours   distance to the nearest cell, and how many lie within --neighbours-um
      quality      0 fine, 1 glass, 2 out of focus, 3 pen, 4 fold, 5 bubble, 6 dust; blur in µm (`wsipipe quality`)
      ring         stain in a ring of --ring-um around the nucleus, which other nuclei are left out of
      stains       mean, maximum and deciles of each stain in nucleus, cytoplasm (that ring, or the expanded cell
                   without its nucleus) and whole cell, which `wsipipe score` goes by

    \b
    Examples:
      wsipipe measure edited.geojson --slide slide.svs -o cells.parquet
      wsipipe measure cells.parquet --slide slide.svs -o more.parquet --add neighbours,ring
      wsipipe measure cells.parquet --slide ki67.svs -o stained.parquet --add stains --stain-vectors hdab
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.segmentation.measuring import MeasureJob, run_measure, totals

    job = MeasureJob(
        cells=cells,
        slide=slide,
        output=output,
        measure=collect(MeasureSettings, options, config),
        slide_settings=collect(SlideSettings, options, config),
        stain=collect(StainSettings, options, config),
    )
    with TerminalProgress() as progress:
        done = run_measure(job, progress)
    if done.left_out:
        click.echo(f"{done.left_out:,} objects are no outlines of cells (regions, points, lines) and were left out")
    if done.bad:
        click.echo(f"warning: {done.bad} areas could not be read; cells there are measured on background", err=True)
    click.echo(f"{'':<38}{'5 %':>10}{'median':>10}{'95 %':>10}")
    shown = tuple(name for name in done.columns[2:] if not DECILE.search(name))
    for name, low, middle, high in totals(output, shown):
        if middle == middle:  # a stain that the slide does not have is NaN
            click.echo(f"{name:<38}{low:>10.4g}{middle:>10.4g}{high:>10.4g}")
    click.echo(f"{done.cells:,} cells: wrote {output}")
