"""Charts as SVG: histograms and bars that follow the page's colours and stay sharp in print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from wsipipe.report.survey import Spread

WIDTH, HEIGHT, FOOT = 360, 150, 26
"""Size of a histogram, and of the foot where its axis stands, in SVG units."""
BINS = 40
MOST_CLASSES = 8
"""More classes than this are not told apart in histograms."""


class Slice(NamedTuple):
    """A part of a bar."""

    name: str
    told: str
    share: float
    colour: str


def histogram(spread: Spread, colours: Sequence[str]) -> Markup:
    """Return a histogram from the 0.2nd to the 99.8th percentile, with the median marked.

    Parameters
    ----------
    spread : Spread
    colours : sequence of str
        CSS colour of each class and, last, of cells without one; drawn on top of each other in that order.
    """
    low, high = spread.quantile(0.002), spread.quantile(0.998)
    if not math.isfinite(low):
        return Markup('<p class="none">no cells</p>')
    edges = _edges(low, high if high > low else low + 1)
    rows = spread.counts if len(spread.counts) <= MOST_CLASSES + 1 else spread.counts.sum(axis=0, keepdims=True)
    shades = colours if len(rows) > 1 else [colours[-1]]
    bars = _rebin(rows, spread.edges, edges)
    middle = spread.quantile(0.5)
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}: median {}">{}{}{}</svg>').format(
        WIDTH, HEIGHT, spread.what.title, number(middle), _bars(bars, shades), _median(middle, edges), _axis(edges)
    )


def bar(slices: Sequence[Slice]) -> Markup:
    """Return one horizontal bar of *slices*, whose shares add up to 1."""
    left, parts = 0.0, []
    for part in slices:
        shape = Markup('<rect x="{:.2f}" width="{:.2f}" height="22" fill="{}"><title>{}: {}</title></rect>')
        parts.append(shape.format(left * WIDTH, max(0.0, part.share * WIDTH - 0.6), part.colour, part.name, part.told))
        left += part.share
    return Markup('<svg class="bar" viewBox="0 0 {} 22" preserveAspectRatio="none">{}</svg>').format(
        WIDTH, Markup("").join(parts)
    )


def sparkline(counts: Sequence[int], middle: float) -> Markup:
    """Return a small histogram of *counts*, with a mark at *middle* (0 to 1), to be compared with others."""
    top, width = max([*counts, 1]), WIDTH / max(1, len(counts))
    steps = "".join(f"L{i * width:.1f} {60 - n / top * 56:.1f}H{(i + 1) * width:.1f}" for i, n in enumerate(counts))
    mark = "" if math.isnan(middle) else Markup('<path class="median" d="M{:.1f} 0V60"/>').format(middle * WIDTH)
    return Markup(
        '<svg class="spark" viewBox="0 0 {0} 62" preserveAspectRatio="none">'
        '<path class="area" d="M0 60{1}L{0} 60z"/>{2}</svg>'
    ).format(WIDTH, steps, mark)


def number(value: float) -> str:
    """Return *value* to three digits, with commas from 1,000 on."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def css(rgb: tuple[int, int, int]) -> str:
    """Return a colour as CSS writes it."""
    return f"#{rgb[0]:02x}{rgb[1]:02x}{rgb[2]:02x}"


def _edges(low: float, high: float) -> NDArray[np.float64]:
    """Return bin edges on whole multiples of a round step."""
    rough = (high - low) / BINS
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((s * power for s in (1, 2, 2.5, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    first, last = math.floor(low / step), math.ceil(high / step)
    return np.arange(first, max(last, first + 1) + 1, dtype=np.float64) * step


def _rebin(rows: NDArray[np.int64], fine: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the counts between *edges*; a fine bin that an edge cuts is shared out."""
    sums = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
    return np.stack([np.diff(np.interp(edges, fine, row)) for row in sums])


def _bars(bars: NDArray[np.float64], colours: Sequence[str]) -> Markup:
    top = max(float(bars.sum(axis=0).max()), 1e-9)
    width, room, parts = WIDTH / bars.shape[1], HEIGHT - FOOT - 4, []
    base = np.zeros(bars.shape[1])
    for row, colour in zip(bars, colours):
        steps = [
            f"M{i * width + 0.4:.1f} {HEIGHT - FOOT - below / top * room:.1f}v{-n / top * room:.1f}"
            f"h{width - 0.8:.1f}v{n / top * room:.1f}z"
            for i, (n, below) in enumerate(zip(row, base))
            if n / top * room >= 0.05
        ]
        parts.append(Markup('<path fill="{}" d="{}"/>').format(colour, "".join(steps)))
        base += row
    return Markup("").join(parts)


def _median(value: float, edges: NDArray[np.float64]) -> Markup:
    x = (value - edges[0]) / (edges[-1] - edges[0]) * WIDTH
    return Markup('<path class="median" d="M{:.1f} 0V{}"/>').format(min(max(x, 0), WIDTH), HEIGHT - FOOT)


def _axis(edges: NDArray[np.float64]) -> Markup:
    """Return the base line with about five numbers."""
    low, high = float(edges[0]), float(edges[-1])
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.99)
    ticks = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
    parts = [Markup('<path class="axis" d="M0 {}H{}"/>').format(HEIGHT - FOOT, WIDTH)]
    for tick in ticks.tolist():
        x = (tick - low) / (high - low) * WIDTH
        where = "start" if x < 12 else "end" if x > WIDTH - 12 else "middle"
        text = Markup('<path class="axis" d="M{0:.1f} {1}v4"/><text x="{0:.1f}" y="{2}" text-anchor="{3}">{4:g}</text>')
        parts.append(text.format(x, HEIGHT - FOOT, HEIGHT - 7, where, round(tick, 10)))
    return Markup("").join(parts)


def class_bar(names: Sequence[str], counts: Sequence[int], colours: Mapping[str, str], none: str) -> Markup:
    """Return the shares of the classes as one bar; cells without a class come last, in the colour *none*."""
    total = max(1, sum(counts))
    shown = [*names, "no class"]
    return bar([Slice(n, f"{c:,}", c / total, colours.get(n, none)) for n, c in zip(shown, counts) if c])
