"""Intervals: fields of 0.25 mm² as units, an exact area of each, and a fair width."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from wsipipe.analysis.fields import Bootstrap, field_keys, fields_of

MPP = (0.5, 0.25)


def test_fields_share_out_a_region() -> None:
    hole = shapely.Point(3000, 6000).buffer(700)
    shape = shapely.difference(shapely.Polygon([(100, 50), (9000, 900), (7000, 15000), (300, 9000)]), hole)
    xy = np.random.default_rng(0).uniform(0, [9000, 15000], (5000, 2))
    xy = xy[shapely.contains_xy(shape, xy)]
    fields = fields_of(shape, MPP, field_keys(xy, MPP))
    assert fields.area_mm2.sum() == pytest.approx(shape.area * MPP[0] * MPP[1] * 1e-6)
    assert fields.area_mm2.max() <= 0.25 + 1e-9 and (np.diff(fields.keys) > 0).all()
    counts = fields.counts(field_keys(xy, MPP))
    assert counts.sum() == len(xy)
    row, column = divmod(int(fields.keys[7]), 1_000_000)
    x0, y0 = column * 500 / MPP[0], row * 500 / MPP[1]
    box = shapely.box(x0, y0, x0 + 500 / MPP[0], y0 + 500 / MPP[1])
    assert fields.area_mm2[7] == pytest.approx(shapely.intersection(shape, box).area * MPP[0] * MPP[1] * 1e-6)
    assert counts[7] == shapely.contains_xy(box, xy).sum()


def test_fewer_than_eight_fields_have_no_interval() -> None:
    ones = np.ones(7)
    assert np.isnan(Bootstrap(7, 200, 0).interval(ones, ones)).all()
    low, high = Bootstrap(8, 200, 0).interval(np.arange(8), np.ones(8))
    assert low < 3.5 < high
    assert np.isnan(Bootstrap(8, 200, 0).interval(ones, np.full(8, np.nan))).all()


def test_the_interval_holds_the_truth_where_neighbours_are_alike() -> None:
    """Cells come in clumps: taken one by one, 95 % intervals would hold the truth in about half of the slides."""
    rng = np.random.default_rng(1)
    held = naive = 0
    for _ in range(200):
        share = rng.beta(2, 8, 40)  # of each field
        cells = rng.integers(50, 400, 40)
        positive = rng.binomial(cells, share)
        low, high = Bootstrap(40, 400, 0).interval(positive, cells)
        held += low <= 0.2 <= high
        p, n = positive.sum() / cells.sum(), cells.sum()
        naive += abs(p - 0.2) <= 1.96 * np.sqrt(p * (1 - p) / n)
    assert held >= 176 and naive < 140  # 88 % (a bootstrap of 40 units is a little narrow) and 70 %
