"""``wsipipe demo-slide``: draw a phantom slide whose nuclei are known."""

from __future__ import annotations

import dataclasses

import click

from wsipipe.cli.options import Command, collect, options_for
from wsipipe.cli.types import BoxType
from wsipipe.errors import SettingsError
from wsipipe.settings import MicroarraySettings, PhantomSettings
from wsipipe.units import Box


@click.command("demo-slide", cls=Command)
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--truth", type=click.Path(dir_okay=False), metavar="FILE.geojson", help="Write the true outlines too.")
@click.option("--labels", type=click.Path(dir_okay=False), metavar="FILE.png", help="Write the true instance map too.")
@click.option("--bounds", type=BoxType(), help="Scan this box only; the rest of the canvas is transparent (Leica SCN).")
@click.option("--tma", is_flag=True, help="Draw a tissue microarray; its size follows from the array.")
@click.option("--cores", type=click.Path(dir_okay=False), metavar="FILE.geojson", help="Write its true cores too.")
@options_for(PhantomSettings, exclude=["bounds"])
@options_for(MicroarraySettings)
def demo_slide(
    out: str, truth: str | None, labels: str | None, bounds: Box | None, tma: bool, cores: str | None, **options: object
) -> None:
    """Draw a phantom slide into OUT, a tiled pyramidal TIFF: H&E-like tissue whose nuclei are known.

    With --staining hdab some nuclei are brown, as of a nuclear marker such as Ki67; --truth says which.

    \b
    wsipipe demo-slide demo.tiff
    wsipipe demo-slide demo.svs --width 100000 --height 100000 --tissue 0.02 --truth demo.geojson
    wsipipe demo-slide ki67.tiff --staining hdab --positive 0.2 --truth ki67.geojson
    wsipipe demo-slide array.tiff --tma --mpp 1 --rotation 4 --missing 0.1 --fragmented 0.2 --cores array.geojson
    """
    from rich.console import Console
    from rich.progress import Progress

    from wsipipe.phantom.demo import draw_demo

    settings = dataclasses.replace(collect(PhantomSettings, options), bounds=bounds)
    array = _array(tma, cores, bounds, options)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("drawing", total=1.0)
        drawn = draw_demo(out, settings, truth, labels, lambda share: bar.update(task, completed=share), array, cores)
    size = f"{drawn.settings.width:,} x {drawn.settings.height:,} px"
    missing = sum(core.missing for core in drawn.cores)
    what = f"{len(drawn.cores)} cores, {missing} of them missing" if array else f"{settings.tissue:.0%} tissue"
    stain = f", H-DAB with {settings.positive:.0%} of the nuclei brown" if settings.staining == "hdab" else ""
    click.echo(f"{out}: {size}, {what}, seed {settings.seed}{stain}")
    for box in drawn.bad:
        click.echo(f"cut short on purpose: tile {','.join(map(str, box))}")


def _array(tma: bool, cores: str | None, bounds: Box | None, options: dict[str, object]) -> MicroarraySettings | None:
    """Return the microarray that is asked for, None for another slide."""
    given = [f.name for f in dataclasses.fields(MicroarraySettings) if options.get(f.name) is not None]
    if not tma and (given or cores):
        option = "--" + given[0].replace("_", "-") if given else "--cores"
        raise SettingsError(f"{option} is for a microarray; give --tma too, or leave it out")
    size = [name for name in ("width", "height", "tissue") if options.get(name) is not None]
    if tma and (bounds or size):
        option = f"--{size[0]}" if size else "--bounds"
        raise SettingsError(f"{option} does not go with --tma: the size of the slide follows from the array")
    return collect(MicroarraySettings, options) if tma else None


command = demo_slide
