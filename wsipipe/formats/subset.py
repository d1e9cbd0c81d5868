"""Some of the cells of a master file, as a master file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsipipe.errors import SettingsError
from wsipipe.formats.conditions import Condition, met, read_conditions
from wsipipe.formats.parquet import CellWriter, metadata, row_groups
from wsipipe.settings import SubsetSettings

COUNTS = ("cells", "oversize", "cells_by_class", "cells_per_mm2")
"""What a master file counts of its own cells, and a part of it counts anew."""


def write_subset(
    master: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: SubsetSettings,
    regions: Sequence[shapely.Geometry] = (),
) -> int:
    """Write the cells of *master* that *settings* take to the master file *out*; return how many.

    Cells keep their columns, identities, order and row groups. A box makes it the analysed area of the file's metadata,
    whose tissue area is not known then, nor the density of cells; nor with *regions* (base px), of which cells are
    taken that touch one.

    Raises
    ------
    StoreError
        When *master* is not a master file of wsipipe.
    SettingsError
        When a class is not one of the file's, or a condition is none.
    OutputError
    """
    about = metadata(master)
    wanted = class_names(settings.classes, about)
    kept = {key: value for key, value in about.items() if key not in COUNTS}
    if regions:
        kept |= {"tissue_area_um2": None}
    if not settings.everything:
        kept["subset"] = {
            "classes": wanted,
            "min_probability": settings.min_probability,
            "drop_oversize": settings.drop_oversize,
        } | ({"where": settings.where} if settings.where else {})
        if settings.bounds is not None:
            kept |= {"analysed": list(settings.bounds), "tissue_area_um2": None}
    schema = pq.read_schema(master).remove_metadata()
    conditions = read_conditions(settings.where, schema)
    areas = shapely.STRtree(list(regions)) if regions else None
    with CellWriter(out, schema, kept) as writer:
        for table in row_groups(master):
            table = table.filter(chosen(table, settings, wanted, conditions))
            writer.write(table if areas is None else table.filter(pa.array(_touching(table, areas))))
    return writer.cells


def chosen(
    table: pa.Table, settings: SubsetSettings, classes: list[str], conditions: Sequence[Condition] = ()
) -> pa.ChunkedArray:
    """Return which rows of *table* are taken."""
    keep = pc.greater_equal(pc.fill_null(table["probability"], 1.0), settings.min_probability)
    if settings.min_probability <= 0:
        keep = pa.chunked_array([pa.array([True] * table.num_rows, pa.bool_())])
    if settings.drop_oversize:
        keep = pc.and_(keep, pc.invert(table["oversize"]))
    if classes:
        keep = pc.and_(keep, pc.is_in(table["class"], pa.array(classes, pa.string())))
    if conditions:
        keep = pc.and_(keep, pa.chunked_array([pa.array(met(table, conditions))]))
    if settings.bounds is not None:
        x0, y0, x1, y1 = settings.bounds
        for name, low, high in (("x", x0, x1), ("y", y0, y1)):
            keep = pc.and_(keep, pc.and_(pc.greater_equal(table[name], low), pc.less(table[name], high)))
    return keep


def _touching(table: pa.Table, areas: shapely.STRtree) -> NDArray[np.bool_]:
    """Return which cells of *table* touch one of the *areas*."""
    touching = np.zeros(table.num_rows, np.bool_)
    touching[areas.query(shapely.from_wkb(table["geometry"].to_numpy()), predicate="intersects")[0]] = True
    return touching


def class_names(text: str, about: dict[str, Any]) -> list[str]:
    """Return the classes that *text* lists, each one of the file's."""
    known = list(about.get("classes") or {})
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            expected = f"expected some of {', '.join(known)}" if known else "its cells have no classes"
            raise SettingsError(f"--classes: no class {name!r} in these cells; {expected}")
    return names
