"""``wsipipe info``: what a slide file says of itself."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from wsipipe.cli.options import Command, collect, options_for
from wsipipe.models.zoo import DEFAULT
from wsipipe.settings import SlideSettings

if TYPE_CHECKING:
    from wsipipe.pipelines.info import SlideReport


@click.command(cls=Command)
@click.argument("slide")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--estimate-mpp", is_flag=True, help="Estimate the resolution by the nuclei in a few fields.")
@click.option("--model", default=DEFAULT, show_default=True, help="Of --estimate-mpp: what finds the nuclei.")
@options_for(SlideSettings)
def info(slide: str, as_json: bool, estimate_mpp: bool, model: str, **options: object) -> None:
    """Show what SLIDE says of itself: reader, size, resolution and where it comes from, levels, fingerprint.

    Reads no pixels, and neither the label nor the macro image. A missing or absurd resolution is shown, not refused.

    With --estimate-mpp a few fields of tissue are segmented at several assumed resolutions, and the one is told at
    which nuclei have their usual size, with what speaks for and against it. This takes a minute or more on a CPU.
    """
    from wsipipe.pipelines.info import describe

    if estimate_mpp:
        _show_estimate(slide, model, as_json, collect(SlideSettings, options))
        return
    report = describe(slide, collect(SlideSettings, options))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False))
    else:
        _show(report)


command = info


def _show_estimate(slide: str, model: str, as_json: bool, settings: SlideSettings) -> None:
    from wsipipe.pipelines.estimate import estimate_mpp

    found = estimate_mpp(slide, model, settings)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found) | {"sure": found.sure}, indent=2))
        return
    click.echo("assumed µm/px   nuclei   mean probability   median diameter µm")
    for trial in found.trials:
        click.echo(f"{trial.mpp:13.3g} {trial.nuclei:8,} {trial.probability:18.2f} {trial.median_um:20.1f}")
    click.echo(found.in_words)


def _show(report: SlideReport) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold]{escape(report.path)}[/]", soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in _rows(report):
        table.add_row(name, escape(value))
    console.print(table)
    for warning in report.warnings:
        console.print(f"[bold yellow]![/] {escape(warning)}", soft_wrap=True)


def _rows(report: SlideReport) -> list[tuple[str, str]]:
    """Return name and value of every line."""
    from wsipipe.slide.planes import listed

    rows = [("reader", report.backend), ("format", report.vendor or "unknown")]
    if report.file_bytes is not None:
        rows.append(("file", f"{report.file_bytes / 1e6:,.1f} MB"))
    rows += [("size", _size(report)), ("resolution", _resolution(report))]
    if report.objective:
        rows.append(("objective", f"{report.objective:g}x"))
    rows += [(f"level {n}", _level(report, n)) for n in range(len(report.levels))]
    if report.bounds:
        x0, y0, x1, y1 = report.bounds
        rows.append(("bounds", f"{x0},{y0},{x1},{y1}  ({x1 - x0:,} x {y1 - y0:,} px)"))
    if len(report.scenes) > 1:
        names = ", ".join(f"{i} {name!r}" for i, name in enumerate(report.scenes))
        rows.append(("scenes", f"{names}; shown: {report.scene}"))
    if report.planes:
        rows.append(("planes", f"{listed(report.planes)}; shown: {report.plane}"))
    return [*rows, ("fingerprint", report.fingerprint)]


def _size(report: SlideReport) -> str:
    text = f"{report.size[0]:,} x {report.size[1]:,} px"
    return f"{text}, {report.size_mm[0]:.2f} x {report.size_mm[1]:.2f} mm" if report.size_mm else text


def _resolution(report: SlideReport) -> str:
    if report.mpp is None:
        return "not stated: give it with --mpp, or see --estimate-mpp"
    x, y = report.mpp
    text = f"{x:.4g} µm/px" if x == y else f"{x:.4g} x {y:.4g} µm/px"
    return f"{text} ({report.mpp_source})" + ("" if report.mpp_plausible else ", implausible")


def _level(report: SlideReport, n: int) -> str:
    (width, height), (down, _) = report.levels[n].size, report.levels[n].downsample
    text = f"{width:,} x {height:,} px, downsample {down:.5g}"
    return f"{text}, {report.mpp[0] * down:.4g} µm/px" if report.mpp and report.mpp_plausible else text
