"""``wsipipe label``: cells of several slides labelled in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.settings import ClassifySettings, SlideSettings


@click.command(cls=Command)
@click.argument("cells", metavar="CELLS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--save", required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Where the classifier is kept, with the labelled cells: .json. One that is there is gone on with.",
)  # fmt: skip
@click.option("--classes", default="", metavar="NAMES", help="Classes to offer, separated by commas.")
@click.option("--slide", default="", metavar="SLIDE", help="The slide, where it is not where the run record says.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; default: any free one.")
@click.option("--browser/--no-browser", default=True, help="Open the browser, or only print the address.")
@config_option
@options_for(ClassifySettings, SlideSettings, exclude=("ask",))
def label(
    cells: tuple[Path, ...], save: Path, classes: str, slide: str, port: int, browser: bool, config: Any, **options: Any
) -> None:
    """Give a few cells of CELLS a class in the browser, the least certain of all slides first.

    CELLS are .parquet files, or folders of them, whose slides are where their run records say. Each answer is a click
    or a key; the classifier learns from it at once, says how good it is on cells of slides (or of one slide, of
    places) that it was not fitted on, and is kept in FILE. Ctrl-C ends it; the same command goes on.

    Then `wsipipe classify CELLS --model FILE -o OUT` gives every cell a class, and `wsipipe segment --types FILE` does
    so in the run that finds them. Only this machine can connect, as with `wsipipe view`.

    \b
    Examples:
      wsipipe label out/ --classes Tumor,Stroma,Lymphocyte --save types.json
      wsipipe label cells.parquet --slide slide.svs --save types.json
      wsipipe segment more/ -o more-out/ --types types.json
    """
    import webbrowser

    from wsipipe.cli.classify import show_scores
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.label import LabelJob, run_label

    names = tuple(name.strip() for name in classes.split(",") if name.strip())
    job = LabelJob(
        cells, save, names, slide, port, collect(ClassifySettings, options, config), collect(SlideSettings, options)
    )

    def started(address: str) -> None:
        click.echo(f"{address}\nCtrl-C ends it")
        if browser:
            webbrowser.open(address)

    done = run_label(job, TerminalProgress(), started)
    counts = ", ".join(f"{name} {count:,}" for name, count in done.counts.items())
    click.echo(f"{sum(done.counts.values()):,} labelled cells: {counts or 'none'}")
    if save.exists():
        show_scores(done.scores)
        click.echo(f"kept in {save}")
    else:
        click.echo("nothing was kept: it takes two cells of each of two classes")
