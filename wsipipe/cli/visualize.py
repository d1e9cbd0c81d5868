"""``wsipipe visualize``: what a network sees, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.cli.types import PointType
from wsipipe.models.zoo import DEFAULT
from wsipipe.settings import GridSettings, SlideSettings, VisualizeSettings
from wsipipe.units import Pair


@click.command(cls=Command)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "-o", "--output", required=True, metavar="PNG", type=click.Path(path_type=Path, dir_okay=False), help="The picture."
)
@click.option("--model", default=DEFAULT, show_default=True, help="Shipped model, or a .safetensors file.")
@click.option("--at", type=PointType(), multiple=True, help="Centre of a region, in level-0 pixels; may be repeated.")
@click.option(
    "--index", type=click.IntRange(0), multiple=True, metavar="INT", help="Patch of a corpus; may be repeated."
)
@click.option(
    "--point", type=PointType(), multiple=True,
    help="What other places are compared with, in level-0 pixels, one per region; default: a dark nucleus.",
)  # fmt: skip
@click.option(
    "--encoder", default="", metavar="ENCODER",
    help="Vision transformer whose tokens are compared too: hf-hub:OWNER/MODEL, or a folder of weights.",
)  # fmt: skip
@config_option
@options_for(VisualizeSettings, SlideSettings)
@options_for(GridSettings, exclude=("overlap",))
def visualize(
    sources: tuple[str, ...],
    output: Path,
    model: str,
    at: tuple[Pair, ...],
    index: tuple[int, ...],
    point: tuple[Pair, ...],
    encoder: str,
    config: Any,
    **options: Any,
) -> None:
    """Draw what a model sees in SOURCE: a slide, pictures, or a corpus of patches.

    One PNG shows, for every region of tissue, clusters of the decoder's dense features at several resolutions; how
    similar every place is to one on a nucleus, in those features and in the tokens of a vision transformer; and, of a
    pretrained backbone, what it makes of a picture of which it sees only a part. A region is 256 px at the model's
    resolution, or --size.

    \b
    Examples:
      wsipipe visualize slide.svs --at 10400,8200 -o features.png
      wsipipe visualize slide.svs --at 10400,8200 --at 22000,4100 --size 512 --clusters 6 -o features.png
      wsipipe visualize a.png b.png --mpp 0.25 --maps 64,256,all -o features.png
      wsipipe visualize corpus.zarr --index 3 --index 17 --model run/backbone.safetensors -o features.png
      wsipipe visualize slide.svs --at 10400,8200 --point 10412,8188 --encoder hf-hub:MahmoodLab/UNI -o features.png
    """
    from wsipipe.cli.notice import show_notice
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.figure.places import Places
    from wsipipe.pipelines.visualize import VisualizeJob, run_visualize

    settings = collect(VisualizeSettings, options, config)
    slide, grid = collect(SlideSettings, options, config), collect(GridSettings, options, config)
    places = Places(sources, at, index, settings.size, slide, grid)
    job = VisualizeJob(places, output, model, encoder, point, settings)
    show_notice(model)
    with TerminalProgress() as progress:
        done = run_visualize(job, progress)
    click.echo(
        f"{done.regions} region{'s' if done.regions != 1 else ''}, {', '.join(done.panels)}: "
        f"wrote {output} ({done.size[0]} x {done.size[1]} px)"
    )
