"""What a reader should know before trusting the numbers: a few questions, each answered in a line."""

from __future__ import annotations

import math
from typing import NamedTuple

from wsipipe.report.facts import Facts
from wsipipe.report.plausible import Totals, doubts
from wsipipe.report.survey import Survey


class Check(NamedTuple):
    """A question, whether its answer is as one would wish, and the answer."""

    title: str
    good: bool
    told: str


def checks(facts: Facts, found: Survey, totals: Totals) -> list[Check]:
    """Return the checks of a slide, those that need a look first."""
    unlikely = dict(doubts(totals, facts.tissue_mm2))
    answers = [_tissue(facts), _resolution(facts), _unreadable(facts), _oversize(totals), _size(totals)]
    answers.append(_probability(found))
    made = [check for check in answers if check is not None and check.title not in unlikely]
    made += [Check(topic, False, told) for topic, told in unlikely.items()]
    made += [Check("Warning", False, text) for text in facts.warnings if text not in unlikely.values()]
    return sorted(made, key=lambda check: check.good)


def _tissue(facts: Facts) -> Check:
    if not facts.tissue_mm2:
        return Check("Tissue", False, "none was found; --tissue none takes every pixel, --tissue FILE what you drew")
    return Check("Tissue", True, f"{facts.tissue_mm2:.3g} mm² analysed")


def _resolution(facts: Facts) -> Check:
    source = str(facts.about.get("mpp_source") or "unknown")
    x, y = facts.about["mpp"]
    told = f"{x:.4g} µm/px" if x == y else f"{x:.4g} × {y:.4g} µm/px"
    if source == "objective power":
        return Check("Resolution", False, f"{told}, only inferred from the objective; --mpp gives the true one")
    return Check("Resolution", True, f"{told} ({source})")


def _unreadable(facts: Facts) -> Check:
    boxes = facts.bad_boxes
    if not boxes:
        return Check("Unreadable areas", True, "none")
    x, y = facts.about["mpp"]
    mm2 = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) * x * y * 1e-6
    areas = "1 area" if len(boxes) == 1 else f"{len(boxes):,} areas"
    return Check("Unreadable areas", False, f"{areas} ({mm2:.3g} mm²) could not be decoded and hold no cells")


def _oversize(totals: Totals) -> Check | None:
    if not totals.cells:
        return None
    share = f"{totals.oversize:,} of {totals.cells:,} ({totals.oversize / totals.cells:.1%})"
    told = f"{share} were cut out of objects larger than any cell"
    return Check("Oversize objects", True, told if totals.oversize else "none")


def _size(totals: Totals) -> Check | None:
    if math.isnan(totals.median_um):
        return None
    return Check("Nuclear size", True, f"median diameter {totals.median_um:.1f} µm")


def _probability(found: Survey) -> Check | None:
    spread = next((s for s in found.spreads if s.what.column == "probability"), None)
    if spread is None or not spread.counts.any():
        return None
    low, middle = spread.quantile(0.05), spread.quantile(0.5)
    return Check("Certainty", True, f"median probability {middle:.2f}; 5 % of the cells are below {low:.2f}")
