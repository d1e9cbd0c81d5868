"""Cells that may be asked for: of all slides, a sample that fits into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsipipe.analysis.classify.examples import Examples
from wsipipe.analysis.classify.model import Floats, Ints
from wsipipe.analysis.classify.reading import labelled, matrix
from wsipipe.errors import SettingsError
from wsipipe.formats.labelled import Labels
from wsipipe.formats.parquet import metadata, row_groups

MOST = 200_000
"""Cells among which questions are chosen, of all slides together."""
FEWEST = 200
"""Of each slide at least so many, where it has them."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """A sample of the cells of several slides.

    Attributes
    ----------
    names : tuple of str
        Of the slides' results; ``masters`` are their files.
    columns : tuple of str
        d measurements.
    x : float32 (n, d)
    slide, group, row : int64 (n,)
        Number of its slide, row group and place there.
    ids : tuple of str
    total : int
        Cells of all slides.
    """

    names: tuple[str, ...]
    masters: tuple[Path, ...]
    columns: tuple[str, ...]
    x: NDArray[np.float32]
    slide: Ints
    group: Ints
    row: Ints
    ids: tuple[str, ...]
    total: int

    def __len__(self) -> int:
        return len(self.ids)

    def table(self, k: int) -> pa.Table:
        """Return the one row of the candidate *k*, with all columns of its file."""
        with pq.ParquetFile(self.masters[self.slide[k]]) as file:
            return file.read_row_group(int(self.group[k])).slice(int(self.row[k]), 1)

    def example(self, k: int, kind: str) -> Examples:
        """Return the candidate *k* as an example of *kind*."""
        return labelled(self.table(k), [kind], self.columns, metadata(self.masters[self.slide[k]]))

    def values(self, rows: Ints) -> Floats:
        """Return the measurements of *rows*, as float64."""
        return self.x[rows].astype(np.float64)


def candidates_of(
    masters: Mapping[str, Path],
    columns: Sequence[str],
    known: Mapping[str, Labels] | None = None,
    most: int = MOST,
) -> Candidates:
    """Return a sample of the cells of *masters*, evenly spread over each file, without those that are labelled.

    Parameters
    ----------
    masters : mapping
        Master files by name.
    columns : sequence of str
    known : mapping, optional
        Labels by name.
    most : int

    Raises
    ------
    SettingsError
        When there is none.
    """
    counts = {name: int(metadata(path)["cells"]) for name, path in masters.items()}
    total = sum(counts.values())
    share = min(1.0, most / max(1, total))
    found = [_of_slide(k, masters[name], columns, counts[name], share, (known or {}).get(name))
             for k, name in enumerate(masters)]  # fmt: skip
    if not sum(len(ids) for *_, ids in found):
        raise SettingsError("there is no cell to ask for: the cells files are empty, or all their cells are labelled")
    x, slide, group, row = (np.concatenate(parts) for parts in list(zip(*found))[:4])
    ids = tuple(id_ for *_, own in found for id_ in own)
    return Candidates(tuple(masters), tuple(masters.values()), tuple(columns), x, slide, group, row, ids, total)


def _of_slide(
    k: int, master: Path, columns: Sequence[str], count: int, share: float, labels: Labels | None
) -> tuple[NDArray[np.float32], Ints, Ints, Ints, list[str]]:
    """Return measurements, slide, row group, row and identity of the cells of one slide that may be asked for."""
    wanted = min(count, max(FEWEST, round(count * share)))
    chosen = np.unique(np.linspace(0, count - 1, wanted).round().astype(np.int64)) if count else np.zeros(0, np.int64)
    x, groups, rows, ids = [np.zeros((0, len(columns)), np.float32)], [], [], list[str]()
    begin = 0
    for group, table in enumerate(row_groups(master)):
        own = chosen[(chosen >= begin) & (chosen < begin + table.num_rows)] - begin
        begin += table.num_rows
        taken = table.take(own)
        if labels is not None:
            free = [i for i, kind in enumerate(labels.of(taken)) if not kind]
            own, taken = own[free], taken.take(free)
        x.append(matrix(taken, columns).astype(np.float32))
        groups.append(np.full(len(own), group, np.int64))
        rows.append(own)
        ids += taken["cell_id"].to_pylist()
    none = np.zeros(0, np.int64)
    return (
        np.concatenate(x),
        np.full(len(ids), k, np.int64),
        np.concatenate([none, *groups]),
        np.concatenate([none, *rows]),
        ids,
    )
