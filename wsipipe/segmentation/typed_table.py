"""Cells given types by a classifier, in a table of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wsipipe.analysis.classify import Classifier
from wsipipe.analysis.classify.reading import matrix
from wsipipe.artifacts import digest
from wsipipe.errors import SettingsError
from wsipipe.formats.labelled import Labels
from wsipipe.formats.parquet import CellWriter, metadata, row_groups
from wsipipe.formats.subset import COUNTS
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.no_cells import warn_of_none


def write_typed(
    cells: Path, output: Path, classifier: Classifier, progress: Progress, own: Labels | None = None
) -> dict[str, int]:
    """Write every cell of a master file with its class; return the cells of each class.

    Parameters
    ----------
    own : Labels, optional
        Cells whose class is known, and kept.

    Raises
    ------
    SettingsError
        When the cells lack a measurement that the classifier goes by.
    """
    about, schema = metadata(cells), pq.read_schema(cells).remove_metadata()
    warn_of_none(cells, about, progress)
    require_columns(cells, classifier, schema.names)
    if "class_probability" not in schema.names:
        place = schema.get_field_index("class") + 1
        schema = schema.insert(place, pa.field("class_probability", pa.float32()))
    kept = {key: value for key, value in about.items() if key not in COUNTS}
    kept["classes"] = {name: classifier.colours.get(name) for name in classifier.classes}
    kept["classifier"] = {"sha256": digest([classifier.weights, classifier.centre, classifier.spread])}
    kept["classifier"] |= {"columns": classifier.columns, **classifier.about}
    progress.start("types", about["cells"])
    found: dict[str, int] = dict.fromkeys(classifier.classes, 0)
    with CellWriter(output, schema, kept) as writer:
        for table in row_groups(cells):
            typed = _typed(table, classifier, own.of(table) if own else [], schema)
            for entry in pc.value_counts(typed["class"].combine_chunks()).to_pylist():
                found[entry["values"]] = found.get(entry["values"], 0) + entry["counts"]
            writer.write(typed)
            progress.advance("types", table.num_rows)
    return found


def require_columns(cells: Path | str, classifier: Classifier, names: Sequence[str]) -> None:
    """Raise SettingsError when *cells*, which have the columns *names*, lack one that *classifier* goes by."""
    lacking = [name for name in classifier.columns if name not in names]
    if lacking:
        raise SettingsError(f"{cells} lacks {', '.join(lacking)}; `wsipipe measure --add ...` makes them")


def _typed(table: pa.Table, classifier: Classifier, labels: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Return *table* with the classes found, or given by *labels*, and the probability of each."""
    probabilities = classifier.probabilities(matrix(table, classifier.columns))
    best = probabilities.argmax(axis=1)
    for i, kind in enumerate(labels):
        if kind in classifier.classes:
            best[i] = classifier.classes.index(kind)
    columns = {name: table[name] for name in table.schema.names}
    columns["class"] = pa.array([classifier.classes[k] for k in best.tolist()], pa.string())
    chosen = probabilities[np.arange(len(best)), best]
    columns["class_probability"] = pa.array(chosen.astype(np.float32))
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)
