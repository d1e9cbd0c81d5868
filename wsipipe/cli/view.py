"""``wsipipe view``: a slide and its cells in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsipipe.cli.options import Command, collect, options_for
from wsipipe.cli.results import FILE_THERE
from wsipipe.settings import SlideSettings, StainSettings


@click.command(cls=Command)
@click.argument("slide")
@click.argument("cells", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--areas", multiple=True, type=FILE_THERE, metavar="FILE",
    help="Annotations to show as well (.geojson), of QuPath, `wsipipe quality`, `tma` or `summarise`. May be repeated.",
)  # fmt: skip
@click.option("--beside", type=FILE_THERE, default=None, metavar="CELLS", help="Other cells of SLIDE, side by side.")
@click.option("--quality", is_flag=True, help="Map what is wrong with the slide first; reads all of it.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; default: any free one.")
@click.option("--at", default=None, metavar="x,y", help="Begin at this position, in level-0 pixels.")
@click.option("--browser/--no-browser", default=True, help="Open the browser, or only print the address.")
@options_for(SlideSettings, StainSettings)
def view(
    slide: str, cells: Path | None, areas: tuple[Path, ...], beside: Path | None, quality: bool, port: int,
    at: str | None, browser: bool, **options: Any,
) -> None:  # fmt: skip
    """Look at SLIDE and its CELLS (.parquet) in the browser.

    The slide itself is shown, down to its pixels; cells are outlines when near and dots when far, in the colours of
    their classes or of a measurement. Pointing at a cell tells its measurements. There are filters by any of them, a
    map of density, each stain alone, annotations and what is wrong with the slide as areas, a button for a picture of
    what is shown, and the address in the browser leads back to the place. Ctrl-C ends it.

    Cells can be given another class, deleted and drawn, regions drawn and counted. What is done is kept beside the
    cells (NAME.corrections.geojson, NAME.regions.geojson), which are never changed.

    Only this machine can connect, with the token in the printed address. On another machine, forward the port:
    `ssh -L 8800:127.0.0.1:8800 host`, and there `wsipipe view --port 8800 --no-browser ...`.

    \b
    Examples:
      wsipipe view slide.svs cells.parquet
      wsipipe view slide.svs cells.parquet --at 10400,8200
      wsipipe view slide.svs cells.parquet --areas annotations.geojson --areas quality.geojson
      wsipipe view slide.svs a.parquet --beside b.parquet
      wsipipe view slide.svs --stain-vectors hdab --quality
    """
    import webbrowser

    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.view import ViewJob, run_view

    if beside and not cells:
        raise click.BadParameter("goes with CELLS: give two results of SLIDE, one of them here", param_hint="--beside")
    job = ViewJob(
        slide, cells, port, _position(at), areas, quality, beside, collect(SlideSettings, options),
        collect(StainSettings, options),
    )  # fmt: skip

    def started(address: str) -> None:
        click.echo(f"{address}\nCtrl-C ends the viewer")
        if browser:
            webbrowser.open(address)

    try:
        run_view(job, TerminalProgress(), started)
    except KeyboardInterrupt:
        click.echo("closed")


def _position(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no position; expected two numbers such as 10400,8200") from error
    return x, y
