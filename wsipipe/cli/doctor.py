"""``wsipipe doctor``: what this machine offers, and what to do about what it does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsipipe.cli.options import Command
from wsipipe.errors import MissingDependency

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from wsipipe.models.machine import Device
    from wsipipe.pipelines.doctor import Check, Report

MARKS = {"ok": "[green]ok[/]", "missing": "[dim]not installed[/]", "broken": "[red]broken[/]"}


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> int:
    """Check this machine: libraries, slide readers, devices, memory, models; say what is missing.

    Each reader opens a small slide that is made on the spot, and one is segmented, which also compiles what the first
    slide would have to wait for. The exit code is 1 when something is broken.
    """
    from wsipipe.pipelines.parts import missing

    if lacking := missing():
        raise MissingDependency(
            f"packages that wsipipe needs are not installed: {', '.join(lacking)}; pip install {' '.join(lacking)}"
        )
    from wsipipe.pipelines.doctor import examine

    report = examine(Path.cwd())
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        from rich.console import Console

        _show(report, Console(highlight=False, soft_wrap=False))
    return 1 if report.problems else 0


def _show(report: Report, console: Console) -> None:
    console.print(f"[bold]wsipipe {report.wsipipe}[/]  ·  Python {report.python}  ·  {report.platform}\n")
    console.print(_checks("Slide readers", report.readers))
    console.print(_checks("A whole run", (report.run,)))
    console.print(_devices(report.devices))
    console.print(_checks("Models", report.models))
    console.print(_checks("Optional parts", report.parts))
    console.print(_machine(report))
    console.print(_libraries(report.libraries))
    for problem in report.problems:
        console.print(f"[bold red]![/] {problem}", soft_wrap=True)
    verdict = "Try" if report.problems else "All well. Begin with"
    console.print(f"[bold]{verdict}:[/] {report.suggestion}", soft_wrap=True)


def _table(title: str) -> Table:
    """Return an empty grid under a bold title."""
    from rich.table import Table

    table = Table(title=f"[bold]{title}[/]", title_justify="left", title_style="", box=None, show_header=False)
    table.add_column(min_width=12)
    return table


def _checks(title: str, checks: tuple[Check, ...]) -> Table:
    table = _table(title)
    for check in checks:
        table.add_row(check.name, MARKS[check.state], check.detail.replace("[", "\\["))
    if not checks:
        table.add_row("none", "", "")
    return _closed(table)


def _devices(devices: tuple[Device, ...]) -> Table:
    table = _table("Devices")
    for device in devices:
        table.add_row(device.name, device.model, f"{_gib(device.free)} of {_gib(device.memory)} GiB free")
        table.add_row("", "", device.detail)
    return _closed(table)


def _machine(report: Report) -> Table:
    table = _table("Allowed to this process")
    table.add_row("cores", str(report.cores))
    table.add_row("memory", f"{_gib(report.memory)} GiB, {_gib(report.memory_free)} free")
    table.add_row("disk", f"{_gib(report.disk_free)} GiB free in {report.disk}")
    return _closed(table)


def _libraries(versions: dict[str, str | None]) -> Table:
    """Return the versions in three columns; what is not installed is dimmed."""
    table = _table("Libraries")
    cells = [f"{name} {version}" if version else f"[dim]{name} –[/]" for name, version in versions.items()]
    for i in range(0, len(cells), 3):
        table.add_row(*cells[i : i + 3])
    return _closed(table)


def _closed(table: Table) -> Table:
    """Return *table* with an empty line at its end."""
    table.add_row("")
    return table


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
