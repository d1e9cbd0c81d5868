"""Cells that are unlikely to be right are doubted, with advice; likely ones are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.masters import write_master
from wsipipe.report.checks import checks
from wsipipe.report.facts import Facts
from wsipipe.report.plausible import Totals, doubts, totals
from wsipipe.report.survey import survey

GOOD = Totals(400, 0, 6.8, 0.86)


def master_of(path: Path, n: int, **changes: Any) -> Path:
    rng = np.random.default_rng(0)
    return write_master(path / "cells.parquet", rng.uniform(20, 780, (n, 2)), bin_px=128, **changes)


def test_likely_cells_raise_no_doubt() -> None:
    assert doubts(GOOD, 0.2) == []
    assert doubts(Totals(0, 0, np.nan, np.nan), 0.0) == [], "a slide without tissue has no cells"


@pytest.mark.parametrize(
    ("found", "topic", "told"),
    [
        (Totals(0, 0, np.nan, np.nan), "Cells", "no cells in 0.2 mm² of tissue"),
        (GOOD._replace(cells=12), "Cells", "only 12 cells in 0.2 mm² of tissue"),
        (GOOD._replace(median_um=2.9), "Nuclear size", "median nuclear diameter 2.9 µm"),
        (GOOD._replace(median_um=14.2), "Nuclear size", "median nuclear diameter 14.2 µm"),
        (GOOD._replace(mean_probability=0.72), "Certainty", "mean probability of the cells is 0.72"),
        (GOOD._replace(oversize=21), "Oversize objects", "5.2% of the cells were cut out"),
    ],
)
def test_each_doubt_has_advice(found: Totals, topic: str, told: str) -> None:
    ((about, text),) = doubts(found, 0.2)
    assert about == topic and text.startswith(told) and "--" in text and "\n" not in text


def test_a_few_cells_say_nothing_of_size_and_probability() -> None:
    assert doubts(Totals(4, 4, 2.0, 0.5), 0.01) == []


def test_totals_of_a_file_are_those_of_its_columns(tmp_path: Path) -> None:
    area = np.random.default_rng(1).gamma(4, 10, 500)
    found = totals(master_of(tmp_path, 500, measures={"area_um2": area}))
    assert found.cells == 500 and found.oversize == 0
    assert found.median_um == pytest.approx(np.median(2 * np.sqrt(area / np.pi)), abs=0.05)
    assert found.mean_probability == pytest.approx(0.75, abs=1e-4)
    assert totals(master_of(tmp_path, 0))[:2] == (0, 0)


def test_cells_without_measurements_are_no_reason_to_doubt(tmp_path: Path) -> None:
    found = totals(master_of(tmp_path, 50, measures={"area_um2": np.full(50, np.nan)}))
    assert np.isnan(found.median_um)
    assert [d.topic for d in doubts(found, 0.02)] == ["Certainty"]


def test_the_report_tells_each_doubt_once(tmp_path: Path) -> None:
    master = master_of(tmp_path, 300, measures={"area_um2": np.full(300, 5.0)})
    found = totals(master)
    told = [text for _, text in doubts(found, 0.2)]
    facts = Facts.of(master, {"fingerprint": "r" * 64, "warnings": [*told, "another"]})
    made = checks(facts, survey(master, dict(facts.about)), found)
    bad = [(check.title, check.told) for check in made if not check.good]
    assert bad == [*doubts(found, 0.2), ("Warning", "another")]
    assert {"Nuclear size", "Certainty"} <= {title for title, _ in bad}
