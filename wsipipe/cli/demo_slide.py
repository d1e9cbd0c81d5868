"""``wsipipe demo-slide``: draw a phantom slide whose nuclei are known."""

from __future__ import annotations

import click

from wsipipe.cli.options import Command, collect, options_for
from wsipipe.cli.types import BoxType
from wsipipe.settings import PhantomSettings
from wsipipe.units import Box


@click.command("demo-slide", cls=Command)
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--truth", type=click.Path(dir_okay=False), metavar="FILE.geojson", help="Write the true outlines too.")
@click.option("--labels", type=click.Path(dir_okay=False), metavar="FILE.png", help="Write the true instance map too.")
@click.option("--bounds", type=BoxType(), help="Scan this box only; the rest of the canvas is transparent (Leica SCN).")
@options_for(PhantomSettings, exclude=["bounds"])
def demo_slide(out: str, truth: str | None, labels: str | None, bounds: Box | None, **options: object) -> None:
    """Draw a phantom slide into OUT, a tiled pyramidal TIFF: H&E-like tissue whose nuclei are known.

    With --staining hdab some nuclei are brown, as of a nuclear marker such as Ki67; --truth says which.

    \b
    wsipipe demo-slide demo.tiff
    wsipipe demo-slide demo.svs --width 100000 --height 100000 --tissue 0.02 --truth demo.geojson
    wsipipe demo-slide ki67.tiff --staining hdab --positive 0.2 --truth ki67.geojson
    """
    import dataclasses

    from rich.console import Console
    from rich.progress import Progress

    from wsipipe.pipelines.demo import draw_demo

    settings = dataclasses.replace(collect(PhantomSettings, options), bounds=bounds)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("drawing", total=1.0)
        drawn = draw_demo(out, settings, truth, labels, lambda share: bar.update(task, completed=share))
    size = f"{settings.width:,} x {settings.height:,} px"
    stain = f", H-DAB with {settings.positive:.0%} of the nuclei brown" if settings.staining == "hdab" else ""
    click.echo(f"{out}: {size}, {settings.tissue:.0%} tissue, seed {settings.seed}{stain}")
    for box in drawn.bad:
        click.echo(f"cut short on purpose: tile {','.join(map(str, box))}")


command = demo_slide
