"""``wsipipe app``: the page to start from, for people without a terminal."""

from __future__ import annotations

from pathlib import Path

import click

from wsipipe.cli.options import Command

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command(cls=Command)
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=FOLDER)
@click.option(
    "--results", type=click.Path(path_type=Path, file_okay=False), default=None, metavar="FOLDER",
    help="Where results go; default: wsipipe-results in the first FOLDER.",
)  # fmt: skip
@click.option("--model", "models", multiple=True, metavar="FILE", help="A model to offer beside the shipped ones.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; default: any free one.")
@click.option("--browser/--no-browser", default=True, help="Open the browser, or only print the address.")
@click.option(
    "--launcher", type=FOLDER, default=None, metavar="FOLDER", help="Write a file that starts this by a double click."
)
def app(
    folders: tuple[Path, ...], results: Path | None, models: tuple[str, ...], port: int, browser: bool,
    launcher: Path | None,
) -> None:  # fmt: skip
    """Open a page in the browser from which slides are segmented without a terminal.

    Choose slides in FOLDER (default: your home folder) and below, a model, and options whose defaults are explained;
    start, watch, look at the cells, score, read the report. Nothing outside the FOLDERs is shown. Runs are those of the
    command line, in folders of their own, one at a time: what was stopped goes on, from the page or a terminal.

    Only this machine can connect, with the token in the printed address. Ctrl-C ends the page and what it runs.

    \b
    Examples:
      wsipipe app
      wsipipe app slides/ --results results/
      wsipipe app slides/ --launcher ~/Desktop
    """
    import webbrowser

    from wsipipe.pipelines.app import AppJob, run_app, write_launcher

    roots = tuple(folder.absolute() for folder in folders) or (Path.home(),)
    job = AppJob(roots, (results or roots[0] / "wsipipe-results").absolute(), models, port)
    if launcher is not None:
        click.echo(f"wrote {write_launcher(launcher, job)}: a double click opens the page")
        return

    def started(address: str) -> None:
        click.echo(f"{address}\nCtrl-C ends the page, and what it runs")
        if browser:
            webbrowser.open(address)

    try:
        run_app(job, started)
    except KeyboardInterrupt:
        click.echo("closed")
