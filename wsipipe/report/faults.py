"""What is wrong with a slide, as a table and as a panel of its report."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from wsipipe.figure.overlay import View
from wsipipe.formats.parquet import batches
from wsipipe.quality.map import COLOURS, FAULTS, Quality, QualityMap
from wsipipe.report.charts import css
from wsipipe.report.pictures import picture_of, scale_bar, svg_path


class Fault(NamedTuple):
    """A kind of places: its area, share of all that is not glass, number of areas, and of cells (None: not counted)."""

    kind: Quality
    area_mm2: float
    share: float
    areas: int
    cells: int | None


def fault_rows(found: QualityMap, master: str | os.PathLike[str] | None) -> tuple[Fault, ...]:
    """Return a line for each kind of places, with the cells of the *master* file that lie there."""
    counts = np.zeros(len(Quality), np.int64)
    for batch in batches(master, ["x", "y"]) if master is not None else ():
        xy = np.column_stack([batch["x"].to_numpy(), batch["y"].to_numpy()])
        counts += np.bincount(found.at(xy)[0], minlength=len(Quality))
    tissue = sum(found.area_mm2(kind) for kind in Quality if kind is not Quality.GLASS)
    rows = []
    for kind in Quality:
        area = found.area_mm2(kind)
        share = 0.0 if kind is Quality.GLASS or not tissue else area / tissue
        areas = len(found.areas(kind)) if kind in FAULTS else 0
        rows.append(Fault(kind, area, share, areas, None if master is None else int(counts[kind])))
    return tuple(rows)


def fault_panel(view: View, found: QualityMap, master: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the picture of a slide with its faults, and the lines of a table: name, colour, numbers."""
    picture = picture_of(view)
    mark = Markup('<path fill="{0}" fill-opacity=".45" stroke="{0}" d="{1}"/>')
    for kind in FAULTS:
        if areas := found.areas(kind):
            picture.layers.append(mark.format(css(COLOURS[kind]), svg_path(view, areas)))
    picture.layers.append(scale_bar(view))
    rows = [(row, css(COLOURS[row.kind])) for row in fault_rows(found, master) if row.kind in FAULTS]
    return {"picture": picture, "rows": rows, "warnings": found.warnings}
