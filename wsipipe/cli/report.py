"""``wsipipe report``: pages that show results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsipipe.cli.options import Command, collect, options_for
from wsipipe.cli.results import THERE
from wsipipe.settings import SlideSettings


@click.command(cls=Command)
@click.argument("results", type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o", "--output", "out", type=click.Path(path_type=Path, dir_okay=False), metavar="HTML",
    help="The page; default: CELLS.report.html beside the cells, report.html in a folder.",
)  # fmt: skip
@click.option("--slide", default="", metavar="SLIDE", help="The slide, where it is not where the run record says.")
@click.option("--title", default="", metavar="TEXT", help="Heading, in place of the slide's file name.")
@click.option("--force", is_flag=True, help="In a folder: make pages again that are up to date.")
@click.option("--quality", is_flag=True, help="Add a panel on blur, pen, folds and so on; reads the whole slide.")
@click.option(
    "--regions", type=THERE, default=None, metavar="FILE",
    help="Add a panel on annotations, cores or hot spots (.geojson), or a folder with NAME.geojson for each slide.",
)  # fmt: skip
@options_for(SlideSettings, exclude=("mpp", "strict_mpp", "force_mpp", "scene", "plane"))
def report(
    results: Path, out: Path | None, slide: str, title: str, force: bool, quality: bool, regions: Path | None,
    **options: Any,
) -> None:  # fmt: skip
    """Show RESULTS as HTML: a cells file (.parquet), or a folder of them.

    A page holds a picture of the slide with its tissue, a map of cell density, fields of view with outlines, histograms
    of size and stain, counts, timings, unreadable areas, settings and versions. It is one file that opens anywhere,
    loads nothing and has no script. It shows the name of the slide's file (or --title), but neither the label nor the
    macro image, nor other properties of the slide.

    \b
    Examples:
      wsipipe report cells.parquet                       writes cells.report.html
      wsipipe report cells.parquet --slide moved/slide.svs --title "Case 12"
      wsipipe report scored.parquet --regions tumour.geojson --quality
      wsipipe report results/                            a page per slide, and results/report.html
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.report import ReportJob, run_report

    job = ReportJob(results, out, slide, title, force, quality, regions, collect(SlideSettings, options))
    with TerminalProgress() as progress:
        pages = run_report(job, progress)
    others = f" and {len(pages) - 1} pages of slides" if len(pages) > 1 else ""
    click.echo(f"wrote {pages[-1]}{others}")
