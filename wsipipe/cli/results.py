"""Options that commands on results share: regions and sheets of summaries, outputs of areas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])
ANY = click.Path(path_type=Path)
THERE = click.Path(path_type=Path, exists=True)
FILE = click.Path(path_type=Path, dir_okay=False)
FILE_THERE = click.Path(path_type=Path, exists=True, dir_okay=False)
WIDEST = 40
"""Characters of the name of a region in the terminal."""


corrections_option = click.option(
    "--corrections", default="auto", metavar="FILE",
    help="Corrections by hand, of `wsipipe view`: a file; auto: NAME.corrections.geojson beside the cells; or none.",
)  # fmt: skip


def region_options(function: Function) -> Function:
    """Add ``--regions``, ``--sheet`` and ``--slide``: of which parts there are numbers, and what goes with them."""
    options = (
        click.option(
            "--regions", type=THERE, default=None, metavar="FILE",
            help="Annotations exported by QuPath (.geojson), or a folder with NAME.geojson for each slide.",
        ),
        click.option(
            "--sheet", type=FILE_THERE, default=None, metavar="CSV",
            help="The table that named the slides of the batch: its columns go into every row.",
        ),
        click.option(
            "--slide", default="", metavar="SLIDE", help="The slide, where it is not where the run record says."
        ),
    )  # fmt: skip
    return _with(function, options)


def area_options(what: str, table: str, drawn: str) -> Callable[[Function], Function]:
    """Add ``-o`` and ``--overlay``: where *what* goes, as annotations and *table*, and a picture of what is *drawn*."""
    options = (
        click.option(
            "-o", "--output", "outputs", multiple=True, type=FILE, metavar="OUT",
            help=f"Where the {what} go: .geojson for QuPath, .csv for {table}. May be repeated.",
        ),
        click.option("--overlay", type=FILE, metavar="PNG", help=f"Draw the {drawn} over the slide."),
    )  # fmt: skip
    return lambda function: _with(function, options)


def region_name(row: Any, several: bool) -> str:
    """Return what a row of a summary is called in the terminal."""
    return f"{row['slide']}: {row['region']}" if several else str(row["region"])


def _with(function: Function, options: tuple[Callable[[Function], Function], ...]) -> Function:
    for option in reversed(options):
        function = option(function)
    return function
