"""Plots of a comparison, as PNG: scores with their intervals, and against the number of annotated images."""

from __future__ import annotations

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
INK, GREY = (40, 40, 45), (215, 215, 220)
Row = Mapping[str, Any]


def write_plots(folder: Path, plan: Plan, table: pd.DataFrame) -> list[Path]:
    """Write a plot for every set and metric, and one of curves where there are several numbers of shots."""
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
            _save(path, _curves(part, f"{title}, by annotated images"))
            written.append(path)
    return written


def _rows(table: pd.DataFrame) -> list[Row]:
    return cast(list[Row], table.to_dict("records"))


def _save(path: Path, picture: Image.Image) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def _ticks(low: float, high: float) -> list[float]:
    """Return the marks of a scale: steps of 1, 2 or 5 that cover low to high, six of them at most."""
    span = max(high - low, 1e-3)
    step = next(s * 10.0**e for e in range(-4, 1) for s in (1, 2, 5) if span / (s * 10.0**e) <= 5)
    first, last = int(low // step), int(-(-high // step))
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


def _curves(part: pd.DataFrame, title: str) -> Image.Image:
    """Return a curve for each system over the numbers of annotated images; 0 stands for all, at the right."""
    shots = sorted(part["shots"].unique(), key=lambda n: n or float("inf"))
    ticks = _ticks(part["low"].min(), part["high"].max())
    names = [str(arm) for arm in part["arm"].unique()]
    x0, bottom = LEFT + 40, TOP + HEIGHT
    size = x0 + PLOT + RIGHT + round(max(width(name, SIZE) for name in names)) + 30, bottom + 50
    picture = Image.new("RGB", (max(size[0], LEFT + round(width(title, SIZE)) + RIGHT), size[1]), "white")
    pen = ImageDraw.Draw(picture)
    write(pen, (LEFT, 20), title, INK, SIZE)
    columns = {n: x0 + 30 + k * (PLOT - 60) / max(1, len(shots) - 1) for k, n in enumerate(shots)}

    def at(value: float) -> float:
        return bottom - (value - ticks[0]) / (ticks[-1] - ticks[0]) * HEIGHT

    for tick in ticks:
        pen.line((x0, at(tick), x0 + PLOT, at(tick)), GREY)
        write(pen, (LEFT - 10, at(tick) - 9), f"{tick:g}", INK, SIZE - 2)
    for n, x in columns.items():
        write(pen, (x - 8, bottom + 12), str(n) if n else "all", INK, SIZE - 2)
    for k, name in enumerate(names):
        colour, rows = PALETTE[k % len(PALETTE)], _rows(part[part["arm"] == name])
        points = sorted(((columns[row["shots"]], row) for row in rows), key=lambda point: point[0])
        for x, row in points:
            pen.line((x, at(row["low"]), x, at(row["high"])), colour, 1)
            pen.ellipse((x - 4, at(row["value"]) - 4, x + 4, at(row["value"]) + 4), colour)
        pen.line([(x, at(row["value"])) for x, row in points], colour, 2)
        write(pen, (x0 + PLOT + 20, TOP + k * LINE), name, colour, SIZE)
    return picture
