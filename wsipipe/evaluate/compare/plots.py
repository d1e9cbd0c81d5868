"""Plots of a comparison, as PNG: scores with their intervals; over annotated images, the plan's axis, and the cost."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
from PIL import Image, ImageDraw

from wsipipe.artifacts import atomic_path
from wsipipe.evaluate.compare.plan import Plan, in_words
from wsipipe.figure.lettering import width, write
from wsipipe.formats.colours import PALETTE

SIZE, LEFT, RIGHT, TOP, LINE = 15, 24, 40, 64, 30
PLOT, HEIGHT = 560, 360
"""Width of the part with the scale, and height of a plot of curves, in pixels."""
COSTS = {"trainable": "trained parameters", "seconds": "seconds of fitting and scoring a cell"}
"""Columns of ``cells.csv`` that scores are plotted against."""
INK, GREY = (40, 40, 45), (215, 215, 220)
Row = Mapping[str, Any]


def write_plots(folder: Path, plan: Plan, table: pd.DataFrame, cells: pd.DataFrame | None = None) -> list[Path]:
    """Write a plot for every set and metric, and further ones of curves.

    Those are over the numbers of shots where there are several, over the plan's axis where its arms form curves, and
    over what the arms cost where *cells* tells it: trained parameters, and seconds a cell.
    """
    folder.mkdir(parents=True, exist_ok=True)
    means = table[table.way == "mean over images"]
    written = []
    for (dataset, metric), part in means.groupby(["set", "metric"], sort=False):
        name = re.sub(r"[^A-Za-z0-9-]+", "-", f"{dataset}-{metric}").strip("-")
        title = f"{dataset}: {metric}, mean over images, 95 % by patient"
        for shots in map(int, part["shots"].unique()):
            path = folder / f"{name}{f'-{shots}-shots' if shots else ''}.png"
            rows = _rows(part[part["shots"] == shots])
            _save(path, _dots(rows, f"{title}{f', {in_words(shots)}' if shots else ''}"))
            written.append(path)
        if part["shots"].nunique() > 1:
            path = folder / f"{name}-by-shots.png"
            _save(path, _lines(*_by_shots(part), f"{title}, by annotated images"))
            written.append(path)
        rows = _rows(part[part["shots"] == part["shots"].iloc[0]])
        further = {f"by {plan.axis or 'axis'}": ("by-axis", _by_axis(rows, plan))}
        for column, words in COSTS.items():
            cost = _mean_of(cells, column)
            further[f"by {words}"] = (f"by-{column}", _by_cost(rows, cost))
        for words, (end, (series, marks)) in further.items():
            if len(marks) > 1 and series:
                path = folder / f"{name}-{end}.png"
                _save(path, _lines(series, marks, f"{title}, {words}"))
                written.append(path)
    return written


def _rows(table: pd.DataFrame) -> list[Row]:
    return cast(list[Row], table.to_dict("records"))


def _save(path: Path, picture: Image.Image) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def _ticks(low: float, high: float) -> list[float]:
    """Return the marks of a scale: steps of 1, 2 or 5 that cover low to high, two to six of them."""
    span = max(high - low, 1e-3)
    step = next(s * 10.0**e for e in range(-4, 1) for s in (1, 2, 5) if span / (s * 10.0**e) <= 5)
    first, last = int(low // step), int(-(-high // step))
    last = max(last, first + 1)  # where all scores are one and the same
    return [round(k * step, 6) for k in range(first, last + 1)]


def _dots(rows: Sequence[Row], title: str) -> Image.Image:
    """Return a line for each system: a dot at its score, a bar over its interval."""
    names = max(width(str(row["arm"]), SIZE) for row in rows)
    ticks = _ticks(min(row["low"] for row in rows), max(row["high"] for row in rows))
    x0 = LEFT + round(names) + 20
    picture = Image.new("RGB", (max(x0 + PLOT + RIGHT, LEFT + round(width(title, SIZE)) + RIGHT),
                                TOP + LINE * len(rows) + 40), "white")  # fmt: skip
    pen = ImageDraw.Draw(picture)
    write(pen, (LEFT, 20), title, INK, SIZE)
    bottom = TOP + LINE * len(rows)

    def at(value: float) -> float:
        return x0 + (value - ticks[0]) / (ticks[-1] - ticks[0]) * PLOT

    for tick in ticks:
        pen.line((at(tick), TOP - 8, at(tick), bottom), GREY)
        write(pen, (at(tick) - 12, bottom + 8), f"{tick:g}", INK, SIZE - 2)
    for k, row in enumerate(rows):
        y, colour = TOP + LINE * k + 8, PALETTE[k % len(PALETTE)]
        write(pen, (LEFT, y - 8), str(row["arm"]), INK, SIZE)
        pen.line((at(row["low"]), y, at(row["high"]), y), colour, 3)
        pen.ellipse((at(row["value"]) - 5, y - 5, at(row["value"]) + 5, y + 5), colour)
    return picture


Series = Mapping[str, Sequence[tuple[float, Row]]]
"""Points (place, row) by the name of the curve that joins them."""


def _lines(series: Series, marks: Mapping[float, str], title: str) -> Image.Image:
    """Return a curve for each of *series*, with the intervals of its points; *marks* are written below their places."""
    rows = [row for points in series.values() for _, row in points]
    ticks = _ticks(min(row["low"] for row in rows), max(row["high"] for row in rows))
    x0, bottom = LEFT + 40, TOP + max(HEIGHT, LINE * len(series))
    size = x0 + PLOT + RIGHT + round(max(width(name, SIZE) for name in series)) + 30, bottom + 50
    picture = Image.new("RGB", (max(size[0], LEFT + round(width(title, SIZE)) + RIGHT), size[1]), "white")
    pen = ImageDraw.Draw(picture)
    write(pen, (LEFT, 20), title, INK, SIZE)
    low, high = min(marks), max(marks)

    def along(place: float) -> float:
        return x0 + 30 + (place - low) / ((high - low) or 1) * (PLOT - 60)

    def at(value: float) -> float:
        return bottom - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (bottom - TOP)

    for tick in ticks:
        pen.line((x0, at(tick), x0 + PLOT, at(tick)), GREY)
        write(pen, (LEFT - 10, at(tick) - 9), f"{tick:g}", INK, SIZE - 2)
    for place, text in marks.items():
        write(pen, (along(place) - width(text, SIZE - 2) / 2, bottom + 12), text, INK, SIZE - 2)
    for k, (name, given) in enumerate(series.items()):
        colour, points = PALETTE[k % len(PALETTE)], sorted(given, key=lambda point: point[0])
        for place, row in points:
            x, y = along(place), at(row["value"])
            pen.line((x, at(row["low"]), x, at(row["high"])), colour, 1)
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), colour)
        pen.line([(along(place), at(row["value"])) for place, row in points], colour, 2)
        write(pen, (x0 + PLOT + 20, TOP + k * LINE), name, colour, SIZE)
    return picture


def _by_shots(part: pd.DataFrame) -> tuple[Series, dict[float, str]]:
    """Return a curve for each system over the numbers of annotated images; 0 stands for all, at the right."""
    shots = sorted(map(int, part["shots"].unique()), key=lambda n: n or float("inf"))
    series = {
        str(arm): [(float(shots.index(row["shots"])), row) for row in _rows(part[part["arm"] == arm])]
        for arm in part["arm"].unique()
    }
    return series, {float(k): str(n) if n else "all" for k, n in enumerate(shots)}


def _by_axis(rows: Sequence[Row], plan: Plan) -> tuple[Series, dict[float, str]]:
    """Return the plan's curves over the logarithm of where their arms stand."""
    arms = {arm.name: arm for arm in plan.arms if arm.curve}
    series: dict[str, list[tuple[float, Row]]] = {}
    for row in rows:
        if row["arm"] in arms:
            series.setdefault(arms[row["arm"]].curve, []).append((math.log10(arms[row["arm"]].at), row))
    places = sorted({place for points in series.values() for place, _ in points})
    return series, {place: _short(10**place) for place in places}


def _mean_of(cells: pd.DataFrame | None, column: str) -> dict[str, float]:
    """Return the mean of a column of ``cells.csv`` for each system; none where it is not told."""
    if cells is None or column not in cells:
        return {}
    return {str(arm): float(each[column].mean()) for arm, each in cells.groupby("arm")}


def _by_cost(rows: Sequence[Row], cost: Mapping[str, float]) -> tuple[Series, dict[float, str]]:
    """Return a point for each system over the logarithm of what it costs."""
    series = {str(row["arm"]): [(math.log10(cost[row["arm"]]), row)] for row in rows if cost.get(row["arm"], 0) > 0}
    places = [points[0][0] for points in series.values()]
    decades = range(math.floor(min(places)), math.ceil(max(places)) + 1) if places else ()
    return series, {float(k): _short(10.0**k) for k in decades}


def _short(value: float) -> str:
    """Return a number as people write it: 10k, 2.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
