"""One pass over the cells: what it counts and which fields it chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.masters import write_master
from wsipipe.formats.parquet import metadata
from wsipipe.report.survey import survey

RNG = np.random.default_rng(0)


def test_quantiles_and_classes_are_those_of_the_cells(tmp_path: Path) -> None:
    n = 3000
    xy = RNG.uniform((20, 20), (1180, 780), (n, 2))
    area = RNG.lognormal(3.5, 0.5, n)
    kinds = RNG.integers(-1, 2, n)
    master = write_master(tmp_path / "cells.parquet", xy, kinds, measures={"area_um2": area})
    found = survey(master, metadata(master))
    assert found.classes == ("Dead", "Epithelial")
    np.testing.assert_array_equal(found.by_class, [np.sum(kinds == k) for k in (0, 1, -1)])
    spread = next(s for s in found.spreads if s.what.column == "area_um2")
    bin_width = (area.max() - area.min()) / 4096
    for share in (0.05, 0.5, 0.95):
        assert spread.quantile(share) == pytest.approx(np.quantile(area, share), abs=2 * bin_width)
    dead = area[kinds == 0]
    assert spread.quantile(0.5, 0) == pytest.approx(np.median(dead), abs=3 * bin_width)


def test_fields_show_the_extremes_and_differ(tmp_path: Path) -> None:
    """Fields are 400 px here: three across, two down; the fifth is crowded, the first has the largest nuclei."""
    places = [(200, 200, 15), (600, 200, 20), (1000, 200, 22), (200, 600, 24), (600, 600, 80), (1000, 600, 30)]
    xy = np.concatenate([RNG.uniform((x - 190, y - 190), (x + 190, y + 190), (n, 2)) for x, y, n in places])
    large = np.arange(len(xy)) < 15
    master = write_master(tmp_path / "cells.parquet", xy, measures={"area_um2": np.where(large, 300.0, 50.0)})
    fields = survey(master, metadata(master)).fields
    assert [(f.reason, f.box, f.cells) for f in fields[:1]] == [("densest", (400, 400, 800, 800), 80)]
    assert {f.reason: f.box for f in fields}["largest nuclei"] == (0, 0, 400, 400)
    assert len({f.box for f in fields}) == len(fields) == 6


def test_fields_lie_in_tissue_as_far_as_there_is_any(tmp_path: Path) -> None:
    """The crowded square is mostly glass: another is shown as the densest; with nothing but glass, it is."""
    places = [(200, 200, 15), (600, 200, 20), (1000, 200, 22), (200, 600, 24), (600, 600, 80), (1000, 600, 30)]
    xy = np.concatenate([RNG.uniform((x - 190, y - 190), (x + 190, y + 190), (n, 2)) for x, y, n in places])
    master = write_master(tmp_path / "cells.parquet", xy)
    shares = {(400, 400, 800, 800): 0.1, (800, 400, 1200, 800): 0.6}
    fields = survey(master, metadata(master), share=lambda box: shares.get(box, 0.9)).fields
    assert fields[0].box == (0, 400, 400, 800), "the most cells among squares of tissue"
    assert (400, 400, 800, 800) not in {f.box for f in fields[:4]}
    glass = survey(master, metadata(master), share=lambda box: 0.05).fields
    assert glass[0].box == (400, 400, 800, 800)


def test_a_slide_without_cells(tmp_path: Path) -> None:
    master = write_master(tmp_path / "cells.parquet", np.zeros((0, 2)))
    found = survey(master, metadata(master))
    assert found.fields == () and not found.by_class.any()
    assert all(np.isnan(s.quantile(0.5)) for s in found.spreads)
