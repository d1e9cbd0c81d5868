"""Cells that are scored: how strongly a marker stained them, read from files; derived classes, written to others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsipipe.analysis.derived import derived_class, split_class
from wsipipe.analysis.scores import STEPS, grades_of, suggest
from wsipipe.errors import SettingsError
from wsipipe.formats.colours import KNOWN, Rgb, class_colours
from wsipipe.formats.parquet import CellWriter, metadata, row_groups
from wsipipe.formats.subset import COUNTS
from wsipipe.schedule.progress import Progress

MOST_VALUES = 10_000_000
"""Values of all of several slides together that thresholds are suggested by."""


def values_of(master: Path, column: str, slides: int) -> NDArray[np.float64]:
    """Return the values that thresholds are suggested by: of several slides at most :data:`MOST_VALUES` together."""
    metadata(master)
    if column not in pq.read_schema(master).names:
        return np.zeros(0)
    found = pq.read_table(master, columns=[column])[column].to_numpy().astype(np.float64)
    return np.asarray(found[:: max(1, math.ceil(len(found) * slides / MOST_VALUES))] if slides > 1 else found)


def suggested_of(master: Path, about: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return the thresholds that the histogram of scored cells suggests; None of cells that are not scored."""
    if not (score := about.get("score")):
        return None
    return suggest(values_of(master, score["column"], 1), len(score["thresholds"]))


def require_column(master: Path, column: str, about: Mapping[str, Any]) -> None:
    """Refuse cells that were not measured for the stain, in one line that says what to do."""
    if column in pq.read_schema(master).names:
        return
    stains = [name for key, name in (about.get("stain_vectors") or {}).items() if key.startswith("Stain ")]
    told = f"were measured for {' and '.join(stains)}" if stains else "were not measured by stain and compartment"
    raise SettingsError(
        f"{master} has no column {column}: its cells {told}; make it with `wsipipe measure {master} --slide SLIDE "
        "--add stains --stain-vectors hdab -o OUT.parquet`"
    )


def write_scored(
    master: Path, out: Path, marker: str, column: str, thresholds: Sequence[float], progress: Progress
) -> dict[str, int]:
    """Write every cell with its derived class by *column* of *marker*; return how many cells stained how."""
    about = metadata(master)
    grades = STEPS[len(thresholds)]
    base = class_colours(about["classes"])
    types = list(dict.fromkeys(split_class(name)[0] for name in about["classes"]))
    types = [*filter(None, types), ""]
    kept = {key: value for key, value in about.items() if key not in COUNTS}
    kept["classes"] = {name: list(base[name]) for name in types if name in base}
    kept["classes"] |= {
        derived_class(type_, grade): list(_colour(base.get(type_), grade)) for type_ in types for grade in grades
    }
    kept["score"] = {"marker": marker, "column": column, "thresholds": list(thresholds)}
    counts = dict.fromkeys((*grades, ""), 0)
    schema = pq.read_schema(master).remove_metadata()
    progress.start("cells", about["cells"])
    with CellWriter(out, schema, kept) as writer:
        for table in row_groups(master):
            found = grades_of(table[column].to_numpy().astype(np.float64), thresholds).tolist()
            before = [split_class(name)[0] for name in table["class"].to_pylist()]
            names = [derived_class(type_, grade) or None for type_, grade in zip(before, found)]
            place = schema.get_field_index("class")
            writer.write(table.set_column(place, "class", pa.array(names, pa.string())))
            for grade in found:
                counts[grade] += 1
            progress.advance("cells", table.num_rows)
    return counts


def _colour(base: Rgb | None, grade: str) -> Rgb:
    """Return the colour of a derived class: the grade's, halfway from that of the type where there is one."""
    own = KNOWN[grade.lower()]
    r, g, b = own if base is None else ((a + c) // 2 for a, c in zip(own, base))
    return r, g, b
