"""``wsipipe example-slide``: a small real slide to try things on."""

from __future__ import annotations

from pathlib import Path

import click

from wsipipe.cli.options import Command


@click.command("example-slide", cls=Command)
@click.argument("out", type=click.Path(path_type=Path), default=".")
@click.option("--url", default="", metavar="URL", help="A mirror, or file:///... of a copy; the checksum is the same.")
def example_slide(out: Path, url: str) -> None:
    """Download a small real slide to OUT, a file or folder (default: here), and check it.

    It is OpenSlide's CMU-1-Small-Region.svs (1.9 MB): skin, H&E, 2220 x 2967 px at 0.499 µm/px, free to use (CC0). What
    was cut short goes on where it stopped. Without a connection, draw a slide: wsipipe demo-slide.

    \b
    wsipipe example-slide
    wsipipe segment CMU-1-Small-Region.svs -o cells.geojson --overlay cells.png
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from wsipipe.cli.interrupt import prompt_interrupt
    from wsipipe.pipelines.example import SIZE, URL, download_example, named

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("downloading", total=SIZE)
        with prompt_interrupt(bar.stop):
            fresh = download_example(out, url or URL, lambda done: bar.update(task, completed=done))
    file = named(out)
    click.echo(f"{file}: {SIZE / 1e6:.1f} MB, checked" if fresh else f"{file} is there already, and whole")
    click.echo(f"try: wsipipe segment {file} -o cells.geojson --overlay cells.png")
