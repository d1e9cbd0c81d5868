"""Hot spots are the best squares there are: against a search of every place, and on fields with a known spot."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsipipe.analysis.hotspots import UNIT, HotSpot, hot_spots
from wsipipe.errors import SettingsError

MPP = (0.5, 0.25)
SIZE = (400, 900)


def whole(spot: HotSpot) -> list[int]:
    return [round(v * UNIT) for v in spot.box]


def count(xy: np.ndarray, box: list[int]) -> np.ndarray:
    """Return which cells lie in a box of units."""
    x, y = np.floor(xy * UNIT).astype(int).T
    return (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])


def every_square(xy: np.ndarray, sides: tuple[int, int], taken: list[list[int]]) -> list[list[int]]:
    """Return a square for each set of cells that one can hold, of those that overlap none that is taken."""
    places = []
    for axis in (0, 1):
        units, last = np.floor(xy[:, axis] * UNIT).astype(int), SIZE[axis] * UNIT - sides[axis]
        at = {0, last, *units, *(units - sides[axis]), *(units + 1), *(units + 1 - sides[axis])}
        at |= {t[axis] - sides[axis] for t in taken} | {t[axis + 2] for t in taken}
        places.append(sorted(v for v in at if 0 <= v <= last))
    squares = [[x, y, x + sides[0], y + sides[1]] for x, y in itertools.product(*places)]
    return [s for s in squares if not any(_overlap(s, t) for t in taken)]


def _overlap(a: list[int], b: list[int]) -> bool:
    return a[0] < b[2] and a[2] > b[0] and a[1] < b[3] and a[3] > b[1]


@st.composite
def fields(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n, groups = draw(st.integers(1, 24)), draw(st.integers(1, 4))
    middle = rng.uniform(0, 1, (groups, 2))[rng.integers(0, groups, n)]
    xy = (middle + rng.normal(0, draw(st.sampled_from([0.02, 0.2])), (n, 2))) % 1 * SIZE
    if draw(st.booleans()):
        xy = np.floor(xy / 20) * 20  # many with the same coordinates
    return xy, rng.random(n) < draw(st.sampled_from([0.2, 0.5, 1.0]))


@settings(max_examples=60, deadline=None)
@given(fields(), st.sampled_from([20.0, 61.3, 150.0]), st.integers(1, 3))
def test_most_cells(field: tuple[np.ndarray, np.ndarray], side_um: float, k: int) -> None:
    xy, _ = field
    spots = hot_spots(xy, SIZE, MPP, k, side_um**2 * 1e-6)
    assert spots
    taken: list[list[int]] = []
    for spot in spots:
        box = whole(spot)
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= SIZE[0] * UNIT and box[3] <= SIZE[1] * UNIT
        assert not any(_overlap(box, other) for other in taken)
        assert count(xy, box).sum() == spot.cells
        sides = (box[2] - box[0], box[3] - box[1])
        assert spot.cells == max(count(xy, s).sum() for s in every_square(xy, sides, taken))
        taken.append(box)


@settings(max_examples=60, deadline=None)
@given(fields(), st.sampled_from([30.0, 90.0]), st.integers(1, 5))
def test_highest_share(field: tuple[np.ndarray, np.ndarray], side_um: float, fewest: int) -> None:
    xy, positive = field
    spots = hot_spots(xy, SIZE, MPP, 2, side_um**2 * 1e-6, positive, by_share=True, fewest=fewest)
    sides = (round(side_um / MPP[0] * UNIT), round(side_um / MPP[1] * UNIT))
    taken: list[list[int]] = []
    for spot in [*spots, None]:
        held = [count(xy, s) for s in every_square(xy, sides, taken)]
        shares = [positive[h].mean() for h in held if h.sum() >= fewest]
        best = max(shares, default=0.0)
        if spot is None:
            assert len(spots) == 2 or best == 0
            return
        inside = count(xy, whole(spot))
        assert inside.sum() == spot.cells >= fewest and positive[inside].sum() == spot.positive is not None
        assert spot.positive and spot.positive / spot.cells == best
        taken.append(whole(spot))


@settings(max_examples=30, deadline=None)
@given(fields(), st.integers(1, 6))
def test_smallest_square(field: tuple[np.ndarray, np.ndarray], fewest: int) -> None:
    xy, _ = field
    spots = hot_spots(xy, SIZE, MPP, 1, fewest=fewest)
    if not spots:
        assert len(xy) < fewest or count(xy, [0, 0, SIZE[0] * UNIT, SIZE[0] * UNIT * 2]).sum() < fewest
        return
    box = whole(spots[0])
    assert count(xy, box).sum() == spots[0].cells >= fewest
    side = box[2] - box[0] - 1
    if side:
        smaller = every_square(xy, (side, max(1, round(side * 2))), [])
        assert all(count(xy, s).sum() < fewest for s in smaller)


def test_a_known_spot_among_many_cells() -> None:
    rng = np.random.default_rng(1)
    size = (20_000, 16_000)
    xy = np.concatenate([rng.uniform(0, size, (60_000, 2)), rng.normal((5000, 9000), 300, (4000, 2))])
    positive = rng.random(len(xy)) < 0.1
    there = np.hypot(*(xy - (15_000, 4000)).T) < 900
    positive[there] = rng.random(there.sum()) < 0.6
    dense = hot_spots(xy, size, (0.5, 0.5), 2, 0.25)
    x0, y0, x1, y1 = dense[0].box
    assert x0 < 5000 < x1 and y0 < 9000 < y1 and dense[0].cells > 2 * dense[1].cells
    assert dense[0].area_mm2 == pytest.approx(0.25) and dense[0].positive_share is None
    share = hot_spots(xy, size, (0.5, 0.5), 1, 1.0, positive, by_share=True)
    x0, y0, x1, y1 = share[0].box
    assert x0 < 15_000 < x1 and y0 < 4000 < y1 and share[0].cells >= 500
    assert share[0].positive_share == share[0].positive / share[0].cells
    small = hot_spots(xy, size, (0.5, 0.5), 1)
    assert small[0].cells >= 500 and small[0].area_mm2 < 0.1
    turned = hot_spots(xy[::-1], size, (0.5, 0.5), 1, 1.0, positive[::-1], by_share=True)
    assert turned == share


def test_nothing_to_find() -> None:
    few = np.array([[10.0, 10.0], [20.0, 20.0]])
    assert hot_spots(few, SIZE, MPP, 3) == []
    assert hot_spots(np.zeros((0, 2)), SIZE, MPP, 1, 0.001) == []
    assert hot_spots(few, SIZE, MPP, 1, 0.001, np.array([True, True]), by_share=True) == []
    assert hot_spots(np.array([[-5.0, 3.0], [1e6, 3.0]]), SIZE, MPP, 1, 0.001) == []


def test_what_cannot_be_asked() -> None:
    with pytest.raises(SettingsError, match="need an area"):
        hot_spots(np.zeros((1, 2)), SIZE, MPP, 1, by_share=True)
    with pytest.raises(SettingsError, match="does not fit into the slide"):
        hot_spots(np.zeros((1, 2)), SIZE, MPP, 1, 1.0)
