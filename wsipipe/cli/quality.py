"""``wsipipe quality``: what is wrong with a slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsipipe.cli.options import Command, collect, options_for
from wsipipe.cli.results import FILE_THERE, area_options
from wsipipe.settings import SlideSettings


@click.command(cls=Command)
@click.argument("slide")
@area_options("areas", "the table", "areas")
@click.option(
    "--cells", type=FILE_THERE, metavar="CELLS",
    help="Count the cells of a .parquet made by `wsipipe segment` in each kind of area.",
)  # fmt: skip
@options_for(SlideSettings)
def quality(slide: str, outputs: tuple[Path, ...], overlay: Path | None, cells: Path | None, **options: Any) -> None:
    """Map what is wrong with SLIDE, at about 8 µm/px: tissue out of focus, pen, folds, air bubbles, dust; and glass.

    The slide is judged as it is, before any search for tissue, and nothing is dropped: the areas are told, and open in
    QuPath as annotations. Give them to `wsipipe summarise --regions` to count the cells in each, or leave some out of
    the analysis with `wsipipe segment --exclude-quality pen,out-of-focus`. All but empty glass is read at 0.5 µm/px.

    \b
    Examples:
      wsipipe quality slide.svs --overlay quality.png
      wsipipe quality slide.svs -o quality.geojson -o quality.csv
      wsipipe quality slide.svs --cells cells.parquet -o quality.csv
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.quality import QualityJob, run_quality

    job = QualityJob(slide, outputs, overlay, cells, collect(SlideSettings, options))
    with TerminalProgress() as progress:
        done = run_quality(job, progress)
    for line in done.warnings:
        click.echo(f"warning: {line}", err=True)
    counted = done.rows[0].cells is not None
    click.echo(f"{'':<14}{'mm²':>10}{'share':>9}{'areas':>8}" + (f"{'cells':>12}" if counted else ""))
    for row in done.rows:
        share = "" if row.kind.name == "GLASS" else f"{row.share:.1%}"
        areas = "" if row.kind.name in ("GLASS", "FINE") else f"{row.areas:,}"
        cells_ = f"{row.cells:>12,}" if counted else ""
        click.echo(f"{row.kind.label:<14}{row.area_mm2:>10.4g}{share:>9}{areas:>8}{cells_}")
    written = [str(path) for path in (*outputs, overlay) if path]
    if written:
        click.echo(f"wrote {', '.join(written)}")
