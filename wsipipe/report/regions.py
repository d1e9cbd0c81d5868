"""The numbers of regions (annotations, cores, hot spots) as a panel of a slide's report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import shapely
from markupsafe import Markup

from wsipipe.figure.overlay import View
from wsipipe.report.pictures import picture_of, scale_bar, svg_path

MOST = 200
"""Rows of the table; a microarray has more cores than anybody reads on a page."""


def region_panel(view: View | None, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the picture of a slide with its regions, numbered, and the lines of a table; None without any.

    Parameters
    ----------
    view : View, optional
        The whole slide, where it is at hand.
    rows : sequence of mapping
        As `wsipipe summarise` has them, with ``geometry`` in base px.
    """
    if not rows:
        return None
    lines = [_line(k, row) for k, row in enumerate(rows[:MOST], 1)]
    shown = {"rows": lines, "left_out": max(0, len(rows) - MOST), "picture": None}
    shown |= {name: any(line[name] for line in lines) for name in ("positive", "h_score")}
    if view is None:
        return shown
    picture, size = picture_of(view), max(view.rgb.shape[:2]) / 34
    for k, row in enumerate(rows[:MOST], 1):
        parts = [part for part in shapely.get_parts(row["geometry"]) if isinstance(part, shapely.Polygon)]
        if not parts or row.get("kind") == "tissue":
            continue
        (x, y), *_ = view.place(shapely.get_coordinates(shapely.point_on_surface(row["geometry"])))
        picture.layers.append(Markup('<path class="field" d="{}"/>').format(svg_path(view, parts)))
        picture.layers.append(
            Markup('<text class="number" x="{:.1f}" y="{:.1f}" font-size="{:.1f}">{}</text>').format(
                x - size / 4, y + size / 3, size, k
            )
        )
    picture.layers.append(scale_bar(view))
    return shown | {"picture": picture}


def _line(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row in words: "" for what is not known."""
    kind = row.get("classification") or row.get("kind") or ""
    density = f"{row['cells_per_mm2']:,.0f}" if _known(row.get("cells_per_mm2")) else ""
    share = f"{row['positive_share']:.1%}" if _known(row.get("positive_share")) else ""
    steps = f"{row['h_score']:.0f}" if _known(row.get("h_score")) else ""
    return {
        "number": number,
        "name": row["region"],
        "kind": kind,
        "area": row.get("area_mm2"),
        "cells": row["cells"],
        "density": density,
        "density_span": _span(row, "cells_per_mm2", "{:,.0f}"),
        "positive": share,
        "positive_span": _span(row, "positive_share", "{:.1%}"),
        "h_score": steps,
    }


def _span(row: Mapping[str, Any], name: str, form: str) -> str:
    """Return a 95 % interval, "–" where there is none."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return f"{form.format(low)} to {form.format(high)}" if _known(low) and _known(high) else "–"


def _known(value: Any) -> bool:
    return value is not None and not math.isnan(value)
