"""``wsipipe benchmark``: systems beside each other, by a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsipipe.cli.options import Command
from wsipipe.errors import SOME_FAILED

if TYPE_CHECKING:
    from wsipipe.pipelines.benchmark import BenchmarkJob

SHOWN = 200
"""Cells that ``--dry-run`` lists one by one."""


@click.command(cls=Command)
@click.argument("plan", metavar="PLAN", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the cells and the tables.",
)  # fmt: skip
@click.option("--root", default=".", metavar="DIR", type=click.Path(path_type=Path), help="Where relative paths start.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Cells at a time.")
@click.option("--dry-run", is_flag=True, help="List the cells, which are done, and about how long the rest takes.")
def benchmark(plan: Path, output: Path, root: Path, workers: int, dry_run: bool) -> int:
    """Compare systems: fit and score every arm of PLAN on every set, fold, number of shots and seed.

    PLAN is a TOML file: a title, the criterion (written before the run), [[sets]] with a split or folds, [[arms]] with
    the settings of `wsipipe fit` or a folder of another tool's predictions, seeds, shots, pairs to be tested. A cell
    is computed once: its folder's name follows from all that its scores depend on. The same command goes on after an
    interruption; a cell that fails does not end the others, and is tried again next time (exit code 9).

    In DIR: tables.md and tables.tex, scores.parquet (a row an image and cell), cells.csv (seconds, parameters),
    differences.csv (paired bootstrap of the patients), plots/, cells/ with the models.

    \b
    Examples:
      wsipipe benchmark workflows/benchmark/backbones-small.toml --root data/ -o out/ --dry-run
      wsipipe benchmark workflows/benchmark/backbones-small.toml --root data/ -o out/
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.benchmark import BenchmarkJob, run_benchmark

    job = BenchmarkJob(plan, output, root, workers)
    if dry_run:
        _show(job)
        return 0
    with TerminalProgress() as progress:
        try:
            cells, failed = run_benchmark(job, progress)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("the same command goes on") from stop
    click.echo((output / "tables.md").read_text(encoding="utf-8"))
    done = sum(one.done for one in cells)
    click.echo(f"{done} of {len(cells)} cells done, {len(failed)} failed; see {output / 'tables.md'}")
    return SOME_FAILED if failed else 0


def _show(job: BenchmarkJob) -> None:
    """List the cells."""
    from wsipipe.evaluate.compare.plan import read_plan
    from wsipipe.evaluate.compare.results import planned

    plan = read_plan(job.plan)
    cells = planned(plan, job.root, job.out)
    click.echo(f"{plan.title}\ncriterion: {plan.criterion}")
    for one in cells[:SHOWN]:
        about = "done" if one.done else f"about {one.seconds:,.0f} s" if one.seconds else "not timed yet"
        click.echo(f"{one.cell.name}: {about}")
    if len(cells) > SHOWN:
        click.echo(f"... and {len(cells) - SHOWN:,} more")
    left = [one for one in cells if not one.done]
    known = [one.seconds for one in left if one.seconds]
    total = f"; about {sum(known) / job.workers / 60:,.0f} min for {len(known)} of them" if known else ""
    click.echo(f"{len(cells):,} cells, {len(cells) - len(left):,} done, {len(left):,} left{total}")
