"""``wsipipe build-corpus``: patches of many slides in one store, for pretraining."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.cli.types import PatchMppType
from wsipipe.errors import SlideError
from wsipipe.settings import CorpusSettings, SlideSettings, TissueSettings

if TYPE_CHECKING:
    from wsipipe.pipelines.corpus import CorpusJob
    from wsipipe.pipelines.corpus_forecast import Forecast

SHOWN = 10
"""Lines of a list in the terminal; the report has all."""


@click.command(cls=Command)
@click.argument("slides", metavar="SLIDES...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="STORE",
    type=click.Path(path_type=Path),
    help="The corpus, a folder: .zarr.",
)
@click.option(
    "--root", metavar="DIR", type=click.Path(path_type=Path), help="Where paths in a CSV start; default: its folder."
)
@click.option(
    "--exclude", multiple=True, metavar="DIR", help="Images of a test set: no patch may show a part of one. Repeatable."
)
@click.option(
    "--image-mpp",
    type=click.FloatRange(0.05, 20),
    metavar="NUMBER",
    help="Resolution of pictures that state none, in µm/px (or give the column mpp of a CSV).",
)
@click.option(
    "--patient", default="", metavar="REGEX", help="The patient in a file name: the expression's first (group)."
)
@click.option("--organ", default="", metavar="REGEX", help="The organ in a file name, likewise.")
@click.option("--dry-run", is_flag=True, help="Say how many patches and bytes it would be; write nothing.")
@click.option(
    "--mpp", type=PatchMppType(), help="Resolution of the patches, or native: each image's own.  [default: 0.5 µm/px]"
)
@config_option
@options_for(CorpusSettings, exclude=("mpp",))
@options_for(TissueSettings)
@options_for(SlideSettings, exclude=("mpp", "scene"))
def build_corpus(
    slides: tuple[str, ...],
    output: Path,
    root: Path | None,
    exclude: tuple[str, ...],
    image_mpp: float | None,
    patient: str,
    organ: str,
    dry_run: bool,
    config: Any,
    **options: Any,
) -> int:
    """Cut SLIDES into patches, keep those fit for pretraining, and store them with where they come from.

    SLIDES are slide files, pictures (PNG, JPEG, TIFF), folders of either, or CSV files with the columns path, mpp,
    organ and patient. Only path is required: a file, a folder, or a pattern such as images/*_a.png. What is out of
    focus, mostly glass, inked, folded or shown twice is left out, and counted. With --exclude, so is every patch that
    shows any part of a test image, however cropped, turned, mirrored, recompressed, or scaled by up to two.

    `wsipipe pretrain` takes the STORE. Beside it lie a report (JSON), a contact sheet and a chart of the organs (PNG).
    The same command resumes an interrupted run; the same slides and settings give the same bytes.

    \b
    Examples:
      wsipipe build-corpus slides/ -o corpus.zarr --cap 500
      wsipipe build-corpus slides.csv -o corpus.zarr --val 0.1 --exclude monuseg/test --exclude tnbc/images
      wsipipe build-corpus tiles/ -o corpus.zarr --image-mpp 0.25 --mpp native --patient '(TCGA-..-....)'
      wsipipe build-corpus slides/ -o corpus.zarr --dry-run
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.corpus.sources import Naming
    from wsipipe.pipelines.corpus import CorpusJob, run_build_corpus
    from wsipipe.pipelines.corpus_forecast import forecast

    job = CorpusJob(
        slides,
        output,
        root,
        exclude,
        image_mpp,
        Naming(patient, organ),
        collect(CorpusSettings, options, config),
        collect(SlideSettings, {**options, "mpp": None}, config),
        collect(TissueSettings, options, config),
    )
    with TerminalProgress() as progress:
        if dry_run:
            planned = forecast(job, progress)
        else:
            try:
                run_build_corpus(job, progress)
            except KeyboardInterrupt as stop:
                raise KeyboardInterrupt(f"the same command goes on with {output}") from stop
    if dry_run:
        click.echo("\n".join(foreseen(planned)))
        return SlideError.exit_code if planned.failures else 0
    return _show(job)


command = build_corpus


def foreseen(planned: Forecast) -> list[str]:
    """Return what a run would do, as lines."""
    lines = [
        f"slides    {planned.slides:,} of {planned.patients:,} patients",
        f"patches   {planned.patches:,} at most, before the filters ({planned.outside:,} more touch no tissue)",
        f"bytes     {size(planned.raw_bytes)} of pixels, about {size(planned.stored_bytes)} stored; "
        f"{size(planned.free_bytes)} free",
    ]
    if planned.stored_bytes > planned.free_bytes:
        lines.append("warning: more than there is room for; --cap or another disk helps")
    return lines + list(listed("failed", planned.failures))


def _show(job: CorpusJob) -> int:
    """Print the table of what was kept and dropped; return the exit code."""
    from wsipipe.corpus import open_corpus
    from wsipipe.corpus.report import beside, report, resolutions

    corpus = open_corpus(job.output)
    found = report(corpus)
    stored = sum(file.stat().st_size for file in corpus.path.rglob("*") if file.is_file())
    click.echo("\n".join(summary(found, resolutions(corpus), stored, corpus.patch)))
    click.echo(f"wrote     {', '.join([str(job.output), *map(str, beside(job.output).values())])}")
    failed = found["slides"]["failed"]
    if failed:
        click.echo(f"wsipipe: {failed} of {found['slides']['given']} slides could not be used", err=True)
    return SlideError.exit_code if failed else 0


def summary(found: Mapping[str, Any], mpps: Mapping[str, int], stored: int, side: int) -> list[str]:
    """Return the report of a corpus as lines for the terminal."""
    from wsipipe.corpus.filters import REASONS

    slides, total = found["slides"], found["patches"] + sum(found["dropped"].values())
    lines = [
        f"slides    {slides['used']:,} of {slides['given']:,} gave patches, of {found['patients']:,} patients",
        f"patches   {found['patches']:,} of {total:,} kept, {side} px, {size(stored)}",
    ]
    lines += [f"            {count:>9,}  {REASONS[reason]}" for reason, count in found["dropped"].items()]
    lines.append("µm/px     " + ", ".join(f"{mpp}: {count:,}" for mpp, count in mpps.items()))
    for title, key in (("split", "splits"), ("organ", "organs")):
        for name, part in found[key].items():
            counts = f"{part['patches']:>9,} patches {part['slides']:>7,} slides {part['patients']:>7,} patients"
            lines.append(f"{title:<9} {name:<24} {counts}")
            title = ""
    matches = {f"{m['slide']} at {m['x_base']}, {m['y_base']}": m["image"] for m in found["excluded"]}
    lines += listed("excluded", matches, "shows")
    return lines + list(listed("failed", found["failures"])) + list(listed("doubtful", found["warnings"]))


def listed(title: str, entries: Mapping[str, str], verb: str = "") -> Iterator[str]:
    """Yield up to ten *entries* as lines under one title, then how many more there are."""
    for place, (name, text) in enumerate(entries.items()):
        if place == SHOWN:
            yield f"            and {len(entries) - SHOWN:,} more, in the report"
            return
        yield f"{title if place == 0 else '':<9} {name}{f' {verb} ' if verb else ': '}{text}"


def size(count: int) -> str:
    """Return a number of bytes as text."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
