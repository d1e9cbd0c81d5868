"""Pictures of cells over the slide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from wsipipe.cells.measure import MEASURES
from wsipipe.errors import OutputError, SettingsError, StoreError
from wsipipe.figure import overlay
from wsipipe.formats import parquet
from wsipipe.formats.colours import NO_CLASS
from wsipipe.slide import ArraySlide, overview

GREEN, RED = NO_CLASS, (250, 0, 0)
Master = Callable[..., Path]


@pytest.fixture
def slide() -> ArraySlide:
    """A smooth slide of 1200 × 800 px at 0.5 µm/px with two levels."""
    y, x = np.indices((800, 1200))
    base = np.stack([x // 8 + 80, y // 8 + 100, (x + y) // 16 + 90], axis=-1).astype(np.uint8)
    return ArraySlide([base, np.ascontiguousarray(base[::4, ::4])], mpp=0.5)


@pytest.fixture
def master(tmp_path: Path) -> Master:
    """Return a function that writes square cells of 20 px about the given centres."""

    def write(xy: NDArray[Any], kind: int = -1, **more: Any) -> Path:
        n, x, y = len(xy), *np.asarray(xy, float).T
        cells = SimpleNamespace(
            sums=np.column_stack([np.ones(n), x, y]).astype(np.int64),
            probability=np.ones(n, np.float32),
            type=np.full(n, kind, np.int16),
            type_probability=np.ones(n, np.float32),
            type_means=np.zeros((n, 0), np.float32),
            oversize=np.zeros(n, bool),
        )
        polygons = shapely.box(x - 10, y - 10, x + 10, y + 10)
        measures = {name: np.full(n, 100.0) for name in MEASURES} | {"x": x, "y": y}
        table = parquet.cells_table(cells, polygons, measures, fingerprint="f", classes=["Dead"])
        parquet.write_part(table, tmp_path / "part")
        about = {"fingerprint": "f", "size": [1200, 800], "bounds": None, "mpp": [0.5, 0.5], "mpp_source": "override"}
        parquet.merge_parts([tmp_path / "part"], tmp_path / "cells.parquet", about | {"classes": {"Dead": RED}} | more)
        return tmp_path / "cells.parquet"

    return write


def _is(rgb: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    hit: NDArray[np.bool_] = (np.abs(rgb.astype(int) - colour) < 40).all(axis=-1)
    return hit


def test_pixels_of_a_region(slide: ArraySlide) -> None:
    view = overlay.look(slide, (100, 50, 900, 750), max_side=1000)
    assert view.scale == (1, 1)
    assert view.mpp == (0.5, 0.5)
    np.testing.assert_array_equal(view.rgb, slide.read_region(0, 100, 50, 800, 700))
    assert overlay.look(slide, (1000, 700, 5000, 5000), 300).box == (1000, 700, 1200, 800)


@pytest.mark.parametrize("side", [100, 300, 777, 1200])
@pytest.mark.parametrize("strip", [1 << 22, 20_000])
def test_reduced_pixels_stay_in_place(
    slide: ArraySlide, side: int, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "STRIP_PIXELS", strip)
    view = overlay.look(slide, max_side=side)
    assert view.rgb.shape == (round(side / 1.5), side, 3)
    y, x = np.indices(view.rgb.shape[:2]) + 0.5
    np.testing.assert_allclose(view.rgb[..., 0], x * view.scale[0] / 8 + 79.5, atol=1.6)
    np.testing.assert_allclose(view.rgb[..., 1], y * view.scale[1] / 8 + 99.5, atol=1.6)


def test_small_regions_are_enlarged(slide: ArraySlide) -> None:
    view = overlay.look(slide, (100, 100, 200, 150))
    assert view.rgb.shape == (150, 300, 3)
    assert view.mpp == pytest.approx((0.5 / 3, 0.5 / 3))


def test_a_region_outside_is_refused(slide: ArraySlide) -> None:
    with pytest.raises(SettingsError, match="outside the slide of 1200 x 800"):
        overlay.look(slide, (2000, 0, 2100, 100))


@pytest.mark.parametrize("region", [(100, 100, 1100, 700), None, (130, 140, 190, 190)])
def test_outlines_lie_on_the_cells(slide: ArraySlide, master: Master, region: Any) -> None:
    view = overlay.look(slide, region, 1200)
    overlay.draw_cells(view, master([(150, 160)]), {})
    y, x = (np.flatnonzero(_is(view.rgb, GREEN).any(axis=axis)) for axis in (1, 0))
    found = np.array([x[0], y[0], x[-1] + 1, y[-1] + 1]) * view.scale[0] + np.tile(view.box[:2], 2)
    np.testing.assert_allclose(found, [140, 150, 160, 170], atol=1.1)


def test_way_of_drawing_follows_the_scale(slide: ArraySlide, master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    path, drawn = master([(150, 160), (600, 400)]), []
    for name in ("draw_outlines", "_draw_dots", "cell_counts"):
        original = getattr(overlay, name)
        monkeypatch.setattr(overlay, name, lambda *a, n=name, f=original: [drawn.append(n), f(*a)][1])
    for side in (1200, 150, 60):
        overlay.draw_cells(overlay.look(slide, max_side=side), path, {})
    assert drawn == ["draw_outlines", "_draw_dots", "cell_counts"]


def test_dots_have_the_colour_of_the_class(slide: ArraySlide, master: Master) -> None:
    view = overlay.look(slide, max_side=200)
    legend = overlay.draw_cells(view, master([(600, 400)], kind=0), {"Dead": RED})
    assert legend == {"Dead": RED}
    assert _is(view.rgb, RED)[66, 99]


def test_the_density_of_no_cells_is_none() -> None:
    heat, top = overlay.heat_map(np.zeros((4, 5), np.float32))
    assert top == 0 and not heat[..., 3].any()


def test_density_is_strongest_where_cells_are(slide: ArraySlide, master: Master) -> None:
    rng = np.random.default_rng(0)
    view, plain = (overlay.look(slide, max_side=60) for _ in range(2))
    legend = overlay.draw_cells(view, master(np.unique(rng.integers((800, 400), (1000, 600), (500, 2)), axis=0)), {})
    change = np.abs(view.rgb.astype(int) - plain.rgb).sum(axis=-1)
    assert change[25, 45] > 100
    assert change[5, 5] == 0
    assert next(iter(legend)).endswith("cells/mm²")


def test_whole_overlay(slide: ArraySlide, master: Master, tmp_path: Path) -> None:
    path = master([(150, 160), (600, 400)], kind=0, bad_boxes=[[700, 100, 800, 200]])
    overlay.write_overlay(slide, path, tmp_path / "a.png")
    rgb = cv2.imread(str(tmp_path / "a.png"))[..., ::-1]
    assert rgb.shape == (800, 1200, 3)
    assert _is(rgb, (128, 128, 128))[100:201, 700:801].sum() > 200  # the unreadable box
    bar = (rgb[-60:, :400] == 0).all(axis=-1).sum(axis=1).max()
    assert bar == 200  # 100 µm
    overlay.write_overlay(slide, path, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_cells(slide: ArraySlide, master: Master, tmp_path: Path) -> None:
    overlay.write_overlay(slide, master(np.zeros((0, 2))), tmp_path / "a.png", max_side=100)
    assert (tmp_path / "a.png").stat().st_size
    view = overlay.look(slide, max_side=100)
    assert list(overlay.draw_cells(view, master(np.zeros((0, 2))), {})) == ["0 cells/mm²"]


def test_errors(slide: ArraySlide, master: Master, tmp_path: Path) -> None:
    path = master([(150, 160)])
    with pytest.raises(SettingsError, match=r"a name that ends in \.png"):
        overlay.write_overlay(slide, path, tmp_path / "a.jpg")
    with pytest.raises(StoreError):
        overlay.write_overlay(slide, tmp_path / "missing", tmp_path / "a.png")
    (tmp_path / "no").touch()
    with pytest.raises(OutputError, match="a file where a folder is expected"):
        overlay.write_overlay(slide, path, tmp_path / "no" / "a.png", max_side=100)


@pytest.mark.parametrize(
    ("most", "expected"), [(1, 1), (1.99, 1), (2, 2), (7.3, 5), (999, 500), (1000, 1000), (0.3, 0.2)]
)
def test_round_length(most: float, expected: float) -> None:
    assert overlay.round_length(most) == pytest.approx(expected)


def test_the_scale_bar_says_micrometres() -> None:
    view = overlay.View(np.full((400, 600, 3), 200, np.uint8), (0, 0, 600, 400), (1.0, 1.0), (0.5, 0.5))
    overlay.draw_scale_bar(view)
    corner = view.rgb[340:, :200]
    assert (corner == 0).all(axis=2).sum() > 100 and (view.rgb[:200] == 200).all()
    tiny = overlay.View(np.full((8, 9, 3), 200, np.uint8), (0, 0, 9, 8), (1.0, 1.0), (0.5, 0.5))
    overlay.draw_scale_bar(tiny)  # most of it lies outside
