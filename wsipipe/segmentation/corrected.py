"""Cells as they were corrected in the viewer, for the commands that go on with them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from wsipipe.errors import SettingsError
from wsipipe.formats.corrections import path_beside, read_corrections, write_corrected
from wsipipe.runs import scratch_folder

AUTO, NONE = "auto", "none"
"""Corrections that lie beside the cells, if there are any; and none, whatever lies there."""


def corrections_of(master: Path, asked: str) -> Path | None:
    """Return the file of corrections to take with *master*: beside it, none, or the one that is *asked* for.

    Raises
    ------
    SettingsError
        When the file that is asked for is not there.
    """
    if asked == NONE:
        return None
    path = path_beside(master) if asked == AUTO else Path(asked)
    if path.is_file():
        return path
    if asked != AUTO:
        raise SettingsError(
            f"--corrections {asked}: no such file; expected auto, none, or a file that `wsipipe view` wrote"
        )
    return None


@contextlib.contextmanager
def corrected(master: Path, asked: str, output: Path, tell: Callable[[str], None]) -> Iterator[Path]:
    """Yield *master*, or a master file of its cells as they were corrected, which goes with the block.

    Parameters
    ----------
    master : path
    asked : str
        See :func:`corrections_of`.
    output : path
        What is made of it; the corrected cells lie beside it for as long as the block runs.
    tell : callable
        Hears in one line what was corrected.

    Raises
    ------
    StoreError, SettingsError
        When the corrections are damaged, or of other cells.
    """
    path = corrections_of(master, asked)
    if path is None:
        yield master
        return
    corrections = read_corrections(path, master)
    tell(f"{master.name}: taken with {path.name} ({corrections.told()}); --corrections none leaves these out")
    with scratch_folder(output) as folder:
        made = folder / master.name
        write_corrected(master, corrections, made)
        yield made
