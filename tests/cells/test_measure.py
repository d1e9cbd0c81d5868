"""Numbers of cells, against geometry that is known and scikit-image."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from skimage.measure import regionprops

from wsipipe.cells import measure
from wsipipe.geometry import Grid
from wsipipe.stain.unmix import HE

GRID = Grid((1000, 1000), (2.0, 2.0), (0.5, 0.5), 0, (0.5, 0.5))


def _cells(labels: NDArray[Any], corner: tuple[int, int] = (0, 0)) -> SimpleNamespace:
    """Return what measuring needs of the cells of a label image whose first pixel is at *corner*."""
    n, (y, x) = labels.max(), np.indices(labels.shape)
    sums = [
        np.bincount(labels.ravel(), (v * np.ones_like(x)).ravel(), n + 1)[1:] for v in (1, x + corner[0], y + corner[1])
    ]
    window = (*corner, corner[0] + labels.shape[1], corner[1] + labels.shape[0])
    return SimpleNamespace(label_image=labels.astype(np.int32), window=window, sums=np.stack(sums, 1).astype(np.int64))


def _ellipse(
    labels: NDArray[Any], number: int, centre: tuple[float, float], axes: tuple[float, float], turn: float
) -> None:
    y, x = np.indices(labels.shape) + 0.5
    dx, dy = x - centre[0], y - centre[1]
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    labels[(u / axes[0]) ** 2 + (v / axes[1]) ** 2 <= 1] = number


@pytest.fixture
def scene() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Labels of three ellipses, pixels, and polygons of their boxes in base px."""
    labels = np.zeros((90, 120), np.int32)
    _ellipse(labels, 1, (30.2, 30.4), (20, 9), 0.5)
    _ellipse(labels, 2, (80, 30), (12, 12), 0)
    _ellipse(labels, 3, (60, 70.5), (3, 30), 1.7)
    rgb = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), np.uint8)
    boxes = [region.bbox for region in regionprops(labels)]
    return labels, rgb, np.array([shapely.box(2 * x0, 2 * y0, 2 * x1, 2 * y1) for y0, x0, y1, x1 in boxes])


def test_shape_agrees_with_scikit_image(scene: Any) -> None:
    labels, rgb, polygons = scene
    found = measure.measure(_cells(labels), polygons, rgb, GRID)
    assert tuple(found) == measure.MEASURES
    for i, region in enumerate(regionprops(labels)):
        y, x = region.centroid
        assert (found["x"][i], found["y"][i]) == pytest.approx(((x + 0.5) * 2, (y + 0.5) * 2))
        assert found["eccentricity"][i] == pytest.approx(region.eccentricity, abs=2e-3)  # which takes pixels for points


def test_size_comes_from_the_polygon() -> None:
    ring = shapely.Polygon([(0, 0), (8, 0), (8, 6), (4, 3), (0, 6)])
    labels = np.ones((3, 4), np.int32)
    found = measure.measure(_cells(labels), np.array([ring]), np.zeros((3, 4, 3), np.uint8), GRID)
    assert found["area_um2"] == pytest.approx([36 * 0.25**2])
    assert found["perimeter_um"] == pytest.approx([30 * 0.25])
    assert found["solidity"] == pytest.approx([36 / 48])


def test_resolution_may_differ_in_x_and_y() -> None:
    """A disc in microns, seen through tall and through square pixels."""
    disc = np.zeros((80, 80), np.int32)
    _ellipse(disc, 1, (40, 40), (10, 20), 0)
    tall = Grid((80, 80), (1.0, 1.0), (0.5, 0.25), 0, (1.0, 1.0))
    outline = np.array([shapely.Point(40, 40).buffer(10, quad_segs=64)])
    found = measure.measure(
        _cells(disc),
        shapely.transform(outline, lambda xy: (xy - 40) * (1, 2) + 40),
        np.zeros((80, 80, 3), np.uint8),
        tall,
    )
    assert found["eccentricity"][0] < 0.1
    assert found["area_um2"][0] == pytest.approx(np.pi * 5**2, rel=1e-3)
    assert found["perimeter_um"][0] == pytest.approx(2 * np.pi * 5, rel=1e-3)
    assert measure.measure(_cells(disc), outline, np.zeros((80, 80, 3), np.uint8), GRID)["eccentricity"][0] > 0.8


def test_stains_are_told_apart() -> None:
    """Pixels made of known amounts of both stains give these amounts back."""
    h, e = (np.array(vector) for _, vector in HE.stains)
    amounts = np.random.default_rng(0).uniform(0, 0.8, (40, 40, 2))
    rgb = np.rint(255 * 10 ** -(amounts @ np.stack([h, e]))).astype(np.uint8)
    labels = np.repeat([1, 2], 20)[:, None] * np.ones(40, np.int32)
    found = measure.measure(_cells(labels), np.array([shapely.box(0, 0, 1, 1)] * 2), rgb, GRID)
    for i, rows in enumerate((slice(0, 20), slice(20, 40))):
        for j, stain in enumerate(("hematoxylin", "eosin")):
            assert found[f"{stain}_od_mean"][i] == pytest.approx(amounts[rows, :, j].mean(), abs=0.003)
            assert found[f"{stain}_od_std"][i] == pytest.approx(amounts[rows, :, j].std(), abs=0.003)


def test_white_has_no_stain_and_black_is_finite(scene: Any) -> None:
    labels, rgb, polygons = scene
    white = measure.measure(_cells(labels), polygons, np.full_like(rgb, 255), GRID)
    assert white["hematoxylin_od_mean"] == pytest.approx(0)
    assert white["eosin_od_std"] == pytest.approx(0)
    black = measure.measure(_cells(labels), polygons, np.zeros_like(rgb), GRID)
    assert all(np.isfinite(column).all() for column in black.values())


def test_numbers_do_not_depend_on_the_window(scene: Any) -> None:
    labels, rgb, polygons = scene
    inner = measure.measure(_cells(labels, (700, 500)), polygons, rgb, GRID)
    padded, pixels = np.pad(labels, ((13, 4), (5, 9))), np.pad(rgb, ((13, 4), (5, 9), (0, 0)))
    outer = measure.measure(_cells(padded, (695, 487)), polygons, pixels, GRID)
    for name in measure.MEASURES:
        np.testing.assert_array_equal(inner[name], outer[name])


def test_no_cells() -> None:
    nothing = _cells(np.zeros((4, 5), np.int32))
    found = measure.measure(nothing, np.zeros(0, np.object_), np.zeros((4, 5, 3), np.uint8), GRID)
    assert {len(column) for column in found.values()} == {0}


def test_what_does_not_fit_is_refused(scene: Any) -> None:
    labels, rgb, polygons = scene
    with pytest.raises(ValueError, match="2 polygons do not fit a window of"):
        measure.measure(_cells(labels), polygons[:2], rgb, GRID)
    with pytest.raises(ValueError, match="do not fit"):
        measure.measure(_cells(labels), polygons, rgb[1:], GRID)
