"""The report of one slide."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import shapely

from wsipipe.artifacts import digest
from wsipipe.figure.overlay import View, look
from wsipipe.formats.colours import NO_CLASS, Rgb, class_colours
from wsipipe.quality.map import QualityMap
from wsipipe.report import charts
from wsipipe.report.checks import checks
from wsipipe.report.facts import STAGES, Facts
from wsipipe.report.faults import fault_panel
from wsipipe.report.pictures import (
    OVERVIEW_SIDE,
    Picture,
    blank_view,
    density,
    field_picture,
    overview,
    picture_of,
    scale_bar,
    stain_pictures,
    tissue_share,
)
from wsipipe.report.plausible import totals
from wsipipe.report.regions import region_panel
from wsipipe.report.rendered import render, write_page
from wsipipe.report.score import score_panel
from wsipipe.report.survey import Field, Survey, survey
from wsipipe.slide import Slide
from wsipipe.tissue import Tissue
from wsipipe.units import Box

SHADES = ("#6b4fa0", "#d1588c", "#3f7fbf", "#4aa36c", "#d08b2f", "#8a8f98", "#b0503f", "#2f9aa0", "#a07fc0")
"""Colours of the stages in the bar of timings."""
CELL_SHADE = "#6b4fa0"
"""Colour of cells without a class in charts."""

Path = str | os.PathLike[str]


class ClassRow(NamedTuple):
    """A line of the table of classes."""

    name: str
    colour: str
    cells: int
    share: float
    per_mm2: float
    area: float


def write_report(
    master: Path, out: Path, facts: Facts, slide: Slide | None = None, tissue: Tissue | None = None,
    quality: QualityMap | None = None, regions: Sequence[Mapping[str, Any]] = (),
    suggested: Sequence[float] | None = None,
) -> None:  # fmt: skip
    """Write the report of a slide as one HTML file, atomically.

    The page holds its pictures and styles, has no script, and asks no server for anything. Only pixels of the pyramid
    are shown: neither label nor macro image, nor any property of the file but its size and resolution. The same
    cells, record and slide give the same bytes.

    Parameters
    ----------
    master : path
        Cells, as Parquet.
    out : path
    facts : Facts
        Of *master*.
    slide : Slide, optional
        Without it the page has no pictures but the map of density.
    tissue : Tissue, optional
    quality : QualityMap, optional
        Of the slide, for a panel of its own.
    regions : sequence of mapping, optional
        Rows of `wsipipe summarise`, for a panel, too.
    suggested : sequence of float, optional
        Thresholds that the histogram of scored cells suggests, for the panel on those that were used.

    Raises
    ------
    OutputError
    """
    whole = view_of(facts, slide, None, OVERVIEW_SIDE)
    share = tissue_share(whole, tissue) if slide is not None and tissue is not None else None
    found = survey(master, dict(facts.about), share=share)
    colours = class_colours(facts.about.get("classes") or {})
    page = render(
        "slide.html",
        facts=facts,
        stamp=stamp_of(facts, slide, quality is not None, regions_mark(regions)),
        found=found,
        checks=checks(facts, found, totals(master)),
        classes=class_rows(facts, found, colours),
        class_bar=_class_bar(found, colours),
        histograms=_histograms(found, colours),
        timings=timings(facts.stages),
        how=how_found(facts),
        score=_scored(master, facts, slide, suggested),
        quality=_faults(master, facts, slide, quality),
        regions=region_panel(whole if slide is not None else None, regions),
        **_pictures(master, facts, found, whole, slide, tissue, colours),
    )
    write_page(out, page)


def stamp_of(facts: Facts, slide: Slide | None, quality: bool = False, regions: str = "") -> str:
    """Return what :func:`is_current` compares: a digest of the facts, what pictures there are, and the regions."""
    return f"{facts.stamp}-{'blank' if slide is None else 'slide'}{'-quality' if quality else ''}{regions}"


def regions_mark(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what tells these regions from others, "" without any."""
    if not rows:
        return ""
    shapes = [None if row["geometry"] is None else shapely.to_wkb(row["geometry"], hex=True) for row in rows]
    return f"-{digest([[row['region'] for row in rows], shapes])[:12]}"


def is_current(out: Path, facts: Facts, slide: Slide | None, quality: bool = False, regions: str = "") -> bool:
    """Whether *out* is a report of the same facts already."""
    try:
        with open(out, encoding="utf-8") as file:
            return f'content="{stamp_of(facts, slide, quality, regions)}"' in file.read(4096)
    except (OSError, UnicodeDecodeError):
        return False


def timings(spent: Mapping[str, float]) -> dict[str, Any]:
    """Return a bar of the stages' seconds, and its legend: name, what it does, seconds, share, colour."""
    order = [stage for stage in STAGES if stage in spent] + [stage for stage in spent if stage not in STAGES]
    total = sum(spent.values()) or 1.0
    rows = [(s, STAGES.get(s, s), spent[s], spent[s] / total, SHADES[i % len(SHADES)]) for i, s in enumerate(order)]
    return {"bar": charts.bar([charts.Slice(r[0], f"{r[2]:,.1f} s", r[3], r[4]) for r in rows]), "rows": rows}


def how_found(facts: Facts) -> list[tuple[str, str]]:
    """Return what determines the result besides the settings, as far as the file says it."""
    about, record = facts.about, facts.record
    width, height = about["size"]
    rows = [("slide", f"{width:,} × {height:,} px"), ("fingerprint", str(about["fingerprint"])[:16])]
    if about.get("analysed"):
        rows.append(("only", "--bounds " + ",".join(map(str, about["analysed"]))))
    if model := about.get("model"):
        rows.append(("model", f"{model.get('name')} {str(model.get('sha256'))[:16]}"))
        rows.append(("weights", str(model.get("licence"))))
    if mpp := about.get("working_mpp"):
        rows.append(("network at", f"{mpp[0]:.4g} µm/px"))
    if recipe := about.get("recipe"):
        told = f"{recipe.get('dtype')} on {recipe.get('device')}, {recipe.get('engine')}, batch {recipe.get('batch')}"
        rows.append(("arithmetic", f"{told}; torch {recipe.get('version')}"))
    rows.append(("wsipipe", str(about.get("version", ""))))
    if tiles := record.get("tiles"):
        workers = (record.get("run") or {}).get("workers", 1)
        rows.append(("work", f"{tiles:,} tiles in {record.get('blocks')} blocks, {workers} workers"))
    return rows


def class_rows(facts: Facts, found: Survey, colours: dict[str, Rgb]) -> list[ClassRow]:
    """Return the table of classes, largest first; empty where the model tells none."""
    if not found.classes:
        return []
    areas = next((s for s in found.spreads if s.what.column == "area_um2"), None)
    rows = []
    for i, (name, count) in enumerate(zip((*found.classes, "no class"), found.by_class.tolist())):
        median = areas.quantile(0.5, i) if areas is not None and count else float("nan")
        density = count / facts.tissue_mm2 if facts.tissue_mm2 else 0.0
        shade = charts.css(colours[name]) if name in colours else CELL_SHADE
        rows.append(ClassRow(name, shade, count, count / max(1, facts.cells), density, median))
    return sorted((r for r in rows if r.cells or r.name != "no class"), key=lambda r: -r.cells)


def view_of(facts: Facts, slide: Slide | None, box: Box | None, side: int) -> View:
    """Return *box* (default: the scanned area) of the slide; an empty view without it."""
    if slide is not None:
        return look(slide, box or slide.info.bounds, side)
    x, y = facts.about["mpp"]
    width, height = facts.about["size"]
    return blank_view((int(width), int(height)), (float(x), float(y)))


def _pictures(
    master: Path, facts: Facts, found: Survey, whole: View, slide: Slide | None, tissue: Tissue | None,
    colours: dict[str, Rgb],
) -> dict[str, Any]:  # fmt: skip
    """Return the overview (None without the slide), the map of density, and the fields of view."""
    analysed: Box | None = tuple(facts.about["analysed"]) if facts.about.get("analysed") else None
    part = view_of(facts, slide, analysed, OVERVIEW_SIDE) if analysed and slide is not None else whole
    heat = picture_of(part)
    layer, top = density(part, master, tissue)
    heat.layers += [layer, scale_bar(part)]
    fields: list[tuple[Field, Picture]] = []
    if slide is not None:
        fields = [field_picture(slide, master, field, colours) for field in found.fields]
    return {
        "overview": overview(whole, tissue, found.fields, facts.bad_boxes) if slide is not None else None,
        "heat": heat,
        "heat_shares_pixels": part is whole and slide is not None,
        "heat_top": top,
        "fields": fields,
        "stains": stain_pictures(slide, found.fields, facts.about.get("stain_vectors")),
        "outline": charts.css(NO_CLASS),
    }


def _scored(
    master: Path, facts: Facts, slide: Slide | None, suggested: Sequence[float] | None
) -> dict[str, Any] | None:
    """Return the panel on thresholds; None of cells that are not scored, or were measured anew without the stain."""
    told = facts.about.get("score")
    if not told or told["column"] not in pq.read_schema(master).names:
        return None
    return score_panel(master, facts.about, suggested, slide)


def _faults(master: Path, facts: Facts, slide: Slide | None, quality: QualityMap | None) -> dict[str, Any] | None:
    """Return the panel on quality, None where nobody asked."""
    if slide is None or quality is None:
        return None
    return fault_panel(view_of(facts, slide, None, OVERVIEW_SIDE), quality, master)


def _histograms(found: Survey, colours: dict[str, Rgb]) -> list[dict[str, Any]]:
    shades = [*(charts.css(colours[name]) for name in found.classes), CELL_SHADE]
    return [
        {
            "what": spread.what,
            "chart": charts.histogram(spread, shades),
            "quantiles": [spread.quantile(share) for share in (0.05, 0.5, 0.95)],
        }
        for spread in found.spreads
        if np.any(spread.counts)
    ]


def _class_bar(found: Survey, colours: dict[str, Rgb]) -> Any:
    shades = {name: charts.css(rgb) for name, rgb in colours.items()}
    return charts.class_bar(found.classes, found.by_class.tolist(), shades, CELL_SHADE)
