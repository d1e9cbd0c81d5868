"""What ``wsipipe segment`` shows of several slides."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from wsipipe.errors import SOME_FAILED

if TYPE_CHECKING:
    from wsipipe.segmentation.batch import BatchJob
    from wsipipe.segmentation.outcome import Outcome, Report

ROWS = 60
"""Rows of the closing table; failures come first."""
WIDEST = 60
"""Columns for a slide's name."""


def run_many(batch: BatchJob, dry_run: bool) -> int:
    """Segment all slides of *batch*, or say what that means; return the exit code."""
    from wsipipe.cli.interrupt import prompt_interrupt
    from wsipipe.cli.notice import show_notice
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.segmentation.batch import run_batch

    if dry_run:
        return _show_survey(batch)
    show_notice(batch.like.model)
    with TerminalProgress() as progress, prompt_interrupt(progress.bars.stop):
        report = run_batch(batch, progress)
    show_report(report)
    return SOME_FAILED if report.failed else 0


def show_report(report: Report) -> None:
    """Print the closing table, the bottleneck, and where the report is."""
    order = {"failed": 0, "done": 1, "skipped": 2}
    rows = sorted(report.outcomes, key=lambda o: (order.get(o.status, 3), o.name))
    width = min(WIDEST, max((len(o.name) for o in rows), default=0))
    click.echo(f"{'slide':<{width}}  {'status':<8} {'cells':>9} {'mm²':>8} {'cells/mm²':>10} {'s':>8}  note")
    for row in rows[:ROWS]:
        click.echo(_line(row, width))
    if len(rows) > ROWS:
        click.echo(f"... and {len(rows) - ROWS:,} more in {report.path}")
    click.echo(", ".join(f"{count:,} {status}" for status, count in report.counts.items()) + f"; see {report.path}")
    slow = Counter[str]()
    for outcome in report.outcomes:
        if outcome.bottleneck:
            slow[outcome.bottleneck] += max(1, round(outcome.seconds))
    if slow:
        from wsipipe.segmentation.job import advice

        click.echo(advice(slow.most_common(1)[0][0]))


def _line(outcome: Outcome, width: int) -> str:
    name = outcome.name if len(outcome.name) <= width else f"…{outcome.name[1 - width :]}"
    start = f"{name:<{width}}  {outcome.status:<8}"
    if outcome.cells is None:
        return f"{start} {'':>9} {'':>8} {'':>10} {'':>8}  {outcome.reason}"
    notes = [outcome.reason, f"{outcome.bad_share:.1%} unreadable" if outcome.bad_share else "", *outcome.warnings]
    if not outcome.tissue_mm2:
        notes.append("no tissue found")
    numbers = f"{outcome.cells:>9,} {outcome.tissue_mm2:>8.3f} {outcome.cells_per_mm2:>10,.0f}"
    seconds = f"{outcome.seconds:.1f}" if outcome.seconds else ""
    return f"{start} {numbers} {seconds:>8}  {'; '.join(filter(None, notes))}".rstrip()


def _show_survey(batch: BatchJob) -> int:
    """Print what each slide means in work; return the exit code."""
    from wsipipe.schedule.progress import Progress
    from wsipipe.segmentation.dry_run import survey

    tiles, area, failed, count = 0, 0.0, 0, 0
    for slide in survey(batch, Progress()):
        count, tiles, area = count + 1, tiles + slide.tiles, area + slide.tissue_mm2
        failed += bool(slide.problem)
        what = f"would fail: {slide.problem}" if slide.problem else f"{slide.tissue_mm2:.3g} mm², {slide.tiles:,} tiles"
        click.echo(f"{slide.name}: {what}")
    click.echo(f"{count:,} slides, {area:.4g} mm² of tissue, {tiles:,} tiles; {failed:,} would fail")
    return SOME_FAILED if failed else 0
