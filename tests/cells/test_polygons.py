"""Outlines are valid, simple, true to area, shared by neighbours, and inside the slide."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsipipe.cells.instances import CellRules, Cells, find_cells
from wsipipe.cells.polygons import _repaired, expand, expand_px, trace
from wsipipe.geometry import Grid

RULES = CellRules(0.5, 0.6, 4.0, 6, 40)
FINE = 8


def grid_of(size: tuple[int, int], scale: tuple[float, float] = (1.0, 1.0), mpp: float = 0.5) -> Grid:
    return Grid(size, scale, (mpp, mpp), 0, (1.0, 1.0))


def rendered(size: tuple[int, int], *ellipses: tuple[float, float, float, float, float]) -> NDArray[np.uint8]:
    """Ellipses (x, y, a, b, angle) as the share of each pixel that they cover, times 255."""
    y, x = (np.mgrid[: size[1] * FINE, : size[0] * FINE] + 0.5) / FINE
    cover = np.zeros(x.shape, bool)
    for cx, cy, a, b, angle in ellipses:
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        cover |= (u / a) ** 2 + (v / b) ** 2 <= 1
    share = cover.reshape(size[1], FINE, size[0], FINE).mean(axis=(1, 3))
    return np.round(share * 255).astype(np.uint8)


def cells_of(foreground: NDArray[np.uint8], marker: NDArray[np.uint8] | None = None, rules: CellRules = RULES) -> Cells:
    h, w = foreground.shape
    maps = np.stack([foreground] if marker is None else [foreground, marker])
    names = ("foreground", "marker")[: len(maps)]
    return find_cells(maps, names, (0, 0, w, h), (0, 0, w, h), (w, h), rules, neighbours=True)


def noise(seed: int, shape: tuple[int, int] = (120, 130)) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, shape).astype(np.float32)
    for _ in range(seed % 4):
        image = (image + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, (1, 1), (0, 1))) / 4
    spread = (image - image.mean()) / image.std() * 60 + 128
    return np.clip(spread, 0, 255).astype(np.uint8)


def assert_sound(polygons: NDArray[np.object_]) -> None:
    assert (shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON).all()
    assert shapely.is_valid(polygons).all() and not shapely.is_empty(polygons).any()
    assert (shapely.get_num_interior_rings(polygons) == 0).all()
    xy = shapely.get_coordinates(polygons)
    assert np.array_equal(xy, np.round(xy, 2))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(((1.0, 1.0), (2.0, 2.0), (0.5, 0.5), (1.37, 1.41), (4.1, 4.1))))
def test_outlines_of_noise_are_sound_and_hardly_overlap(seed: int, scale: tuple[float, float]) -> None:
    foreground = noise(seed)
    cells = cells_of(foreground, noise(seed + 1))
    polygons = trace(cells, foreground, 0.5, grid_of((130, 120), scale))
    assert len(polygons) == len(cells)
    assert_sound(polygons)
    plain = trace(cells, foreground, 0.5, grid_of((130, 120), scale), tolerance=0)
    assert_sound(plain)
    change, px = abs(shapely.area(polygons) - shapely.area(plain)), scale[0] * scale[1]
    assert (change <= 0.05 * scale[0] * shapely.length(plain) + 2.0 * px).all()
    assert (shapely.hausdorff_distance(polygons, plain) <= 1.0 * scale[0]).all()
    for outlines, most in ((plain, 0.01), (polygons, 0.06)):
        i, j = shapely.STRtree(outlines).query(outlines, predicate="intersects")
        i, j = i[i < j], j[i < j]
        shared = shapely.area(shapely.intersection(outlines[i], outlines[j]))
        border = np.minimum(shapely.length(outlines[i]), shapely.length(outlines[j]))
        assert (shared <= most * scale[0] * border + 0.01).all()  # px all along the border


@pytest.mark.parametrize("radius", [4.0, 5.0, 6.5, 8.0, 12.0, 16.0])
def test_area_of_discs_is_unbiased(radius: float) -> None:
    rng = np.random.default_rng(int(radius * 10))
    errors = []
    for _ in range(12):
        x, y = 25 + rng.uniform(0, 1, 2)
        foreground = rendered((50, 50), (x, y, radius, radius, 0.0))
        cells = cells_of(foreground, rules=CellRules(0.5, 0.5, 4.0, 8, 64))
        (polygon,) = trace(cells, foreground, 0.5, grid_of((50, 50)))
        errors.append(polygon.area / (np.pi * radius**2) - 1)
        assert abs(polygon.centroid.x - x) < 0.08 and abs(polygon.centroid.y - y) < 0.08
    assert abs(np.mean(errors)) < 0.005 and np.abs(errors).max() < 0.02


def test_area_of_ellipses_at_any_angle_and_threshold_steps() -> None:
    for angle in np.linspace(0, np.pi, 7):
        foreground = rendered((60, 60), (30.3, 29.8, 12, 6, float(angle)))
        (polygon,) = trace(cells_of(foreground), foreground, 0.5, grid_of((60, 60)))
        assert polygon.area == pytest.approx(np.pi * 72, rel=0.02)
        assert 10 <= len(polygon.exterior.coords) <= 40


def test_outline_is_that_of_a_pixel_block_with_hard_edges() -> None:
    foreground = np.zeros((20, 20), np.uint8)
    foreground[5:15, 4:16] = 255
    (polygon,) = trace(cells_of(foreground), foreground, 0.5, grid_of((20, 20)), tolerance=0)
    assert polygon.bounds == (4.0, 5.0, 16.0, 15.0)
    assert polygon.area == 120 - 4 * 0.125  # less the corners
    assert polygon.exterior.is_ccw  # shapely's y goes up: clockwise on the screen


def test_neighbours_share_their_border() -> None:
    foreground = rendered((60, 40), (22, 20, 8, 8, 0), (36, 20, 8, 8, 0))
    marker = rendered((60, 40), (22, 20, 4, 4, 0), (36, 20, 4, 4, 0))
    a, b = trace(cells_of(foreground, marker), foreground, 0.5, grid_of((60, 40)), tolerance=0)
    assert a.intersection(b).area == 0 and a.intersection(b).length > 4


def test_outlines_are_clipped_to_the_slide() -> None:
    foreground = rendered((40, 40), (39, 20, 8, 8, 0), (1, 39, 6, 6, 0))
    cells = cells_of(foreground)
    grid = grid_of((40, 40), (1.5, 1.5))
    for size, limit in ((None, (60.0, 60.0)), ((59, 59), (59.0, 59.0))):
        polygons = trace(cells, foreground, 0.5, grid, base_size=size)
        assert_sound(polygons)
        x0, y0, x1, y1 = shapely.total_bounds(polygons)
        assert (x0, y0) >= (0, 0) and (x1, y1) == limit


def test_a_window_of_another_shape_is_refused() -> None:
    cells = cells_of(np.zeros((20, 20), np.uint8))
    with pytest.raises(ValueError, match="expected that of the window"):
        trace(cells, np.zeros((20, 21), np.uint8), 0.5, grid_of((20, 20)))
    with pytest.raises(ValueError, match="neighbours=True"):
        foreground = rendered((40, 40), (20, 20, 6, 6, 0))
        cells = dataclasses.replace(cells_of(foreground), neighbours=None)
        expand(cells, trace(cells, foreground, 0.5, grid_of((40, 40))), 3.0, grid_of((40, 40)))


@pytest.mark.parametrize("ring", [[(0, 0), (4, 4), (4, 0), (0, 5)], [(0, 0), (3, 0), (1, 0)], [(1, 1), (1, 1), (1, 1)]])
def test_invalid_rings_are_repaired(ring: list[tuple[float, float]]) -> None:
    polygon = _repaired(shapely.Polygon(ring))
    assert_sound(np.array([polygon], np.object_))


def test_cells_far_below_the_rounding_are_still_polygons() -> None:
    foreground = noise(3)
    polygons = trace(cells_of(foreground, noise(4)), foreground, 0.5, grid_of((130, 120), (0.004, 0.004)))
    assert shapely.is_valid(polygons).all() and (shapely.area(polygons) > 0).all()


def test_expanded_cells_are_octagons_around_their_nuclei() -> None:
    foreground = rendered((80, 80), (40, 40, 8, 8, 0))
    cells, grid = cells_of(foreground), grid_of((80, 80))
    nuclei = trace(cells, foreground, 0.5, grid)
    (cell,) = expand(cells, nuclei, 5.0, grid)
    away = np.hypot(*(shapely.get_coordinates(cell) - [40, 40]).T)
    assert expand_px(5.0, grid) == 10 and away.min() > 17 and away.max() < 20.5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((1.0, 2.0, 4.0)))
def test_expanded_cells_contain_their_nuclei_and_respect_neighbours(seed: int, by_um: float) -> None:
    foreground, grid = noise(seed), grid_of((130, 120), (2.0, 2.0))
    cells = cells_of(foreground, noise(seed + 1))
    nuclei = trace(cells, foreground, 0.5, grid)
    grown = expand(cells, nuclei, by_um, grid)
    assert_sound(grown)
    assert shapely.covers(grown, nuclei).all()
    i, j = shapely.STRtree(grown).query(nuclei, predicate="intersects")
    shared = shapely.area(shapely.intersection(nuclei[i], grown[j]))[i != j]
    slight = shared <= 0.3 * shapely.length(nuclei[i])[i != j]  # 0.15 px all along the border
    wrapped = shared > 0.9 * shapely.area(nuclei[i])[i != j]  # a cell that closes around a smaller one
    assert (slight | wrapped).all() and wrapped.sum() <= 0.02 * len(cells)


def test_no_expansion_returns_the_nuclei() -> None:
    foreground, grid = noise(1), grid_of((130, 120))
    cells = cells_of(foreground)
    nuclei = trace(cells, foreground, 0.5, grid)
    assert np.array_equal(expand(cells, nuclei, 0.0, grid), nuclei)
    assert len(trace(cells_of(np.zeros((20, 20), np.uint8)), np.zeros((20, 20), np.uint8), 0.5, grid)) == 0
