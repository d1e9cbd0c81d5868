"""Cells do not depend on how the slide is cut into windows, and are what the rules say."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsipipe.cells.instances import CellRules, Cells, find_cells, halo
from wsipipe.cells.polygons import expand, expand_px, trace
from wsipipe.errors import SettingsError
from wsipipe.geometry import Grid, grow, intersect, is_empty
from wsipipe.units import Box, Size

Maps = NDArray[np.uint8]
PLAIN = CellRules(0.5, 0.6, 4.0, 3, 17, peak_px=3)
RULES = replace(PLAIN, clump_threshold=0.7, clump_part_px=2, clump_share_px=60)
SIZE = 170, 150
Record = tuple[object, ...]


def noise(size: Size, scale: int, seed: int) -> Maps:
    """Smooth random field with features of *scale* px."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size[1] // scale + 3, size[0] // scale + 3)).astype(np.float32)
    field = cv2.resize(coarse, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)[: size[1], : size[0]]
    return np.clip(field * 1.6 - 70, 0, 255).astype(np.uint8)


def plateau(size: Size, seed: int) -> Maps:
    """Everything above threshold, flat but for a few dents."""
    image = np.full((size[1], size[0]), 255, np.uint8)
    for x, y in np.random.default_rng(seed).integers(0, min(size), (seed % 40, 2)):
        image[y, x] = 0
    return image


def filaments(size: Size, seed: int) -> Maps:
    """Long thin crooked lines across everything."""
    rng = np.random.default_rng(seed)
    image = np.zeros((size[1], size[0]), np.uint8)
    for _ in range(rng.integers(1, 25)):
        steps = rng.normal(0, 4, (60, 2)) + rng.normal(0, 3, 2)
        line = np.cumsum(steps, axis=0) + rng.uniform(0, size, 2)
        cv2.polylines(image, [line.astype(np.int32)], False, int(rng.integers(100, 256)), int(rng.integers(1, 4)))
    return image


def spiral(size: Size, seed: int) -> Maps:
    """A band wound around the middle, or rings around each other."""
    pitch, band = 4 + seed % 9, 1 + seed % 4
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float64)
    dx, dy = x - size[0] / 2 - seed % 5, y - size[1] / 2
    phase = np.hypot(dx, dy) + (pitch * np.arctan2(dy, dx) / (2 * np.pi) if seed % 2 else 0)
    return np.where(phase % pitch < band + 0.5, 220, 40).astype(np.uint8)


def discs(size: Size, seed: int, radius: tuple[float, float] = (3, 9)) -> Maps:
    """Round nuclei with soft edges, overlapping, some across the slide's edge."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float64)
    image = np.zeros((size[1], size[0]))
    for _ in range(60):
        cx, cy, r = rng.uniform(-3, size[0] + 3), rng.uniform(-3, size[1] + 3), rng.uniform(*radius)
        image = np.maximum(image, np.clip(r - np.hypot(x - cx, y - cy) + 0.5, 0, 1))
    return (image * 255).astype(np.uint8)


def stripes(size: Size, seed: int) -> Maps:
    """Checkerboards, combs and stripes of one to a few px."""
    y, x = np.mgrid[: size[1], : size[0]]
    a, b = 1 + seed % 4, 1 + seed % 7
    image = np.where((x // a + (y // b) * (seed % 3)) % 2, 255, 0)
    image[:: 5 + seed % 20] = 255 * (seed % 2)
    return image.astype(np.uint8)


def example(kind: str, seed: int, size: Size = SIZE) -> Maps:
    """A map of the given kind."""
    if kind.startswith("noise"):
        return noise(size, int(kind[5:]), seed)
    return {"plateau": plateau, "filaments": filaments, "spiral": spiral, "discs": discs, "stripes": stripes}[kind](
        size, seed
    )


KINDS = (
    "noise1",
    "noise2",
    "noise3",
    "noise5",
    "noise9",
    "noise20",
    "plateau",
    "filaments",
    "spiral",
    "discs",
    "stripes",
)


def records(cells: Cells, maps: Maps, rules: CellRules, grid: Grid, by_um: float) -> list[Record]:
    """Everything that is known of each cell, comparable."""
    outlines = trace(cells, maps[0], rules.threshold, grid)
    shapes = [outlines] + ([expand(cells, outlines, by_um, grid)] if by_um else [])
    columns = (
        cells.sums,
        cells.box,
        cells.probability,
        cells.type,
        cells.type_probability,
        cells.type_means,
        cells.oversize,
    )
    rows = (tuple(np.asarray(column[i]).tobytes() for column in columns) for i in range(len(cells)))
    return [(row, *(shape[i].wkb for shape in shapes)) for i, row in enumerate(rows)]


def cut(
    maps: Maps, names: tuple[str, ...], block: Size, shift: Size, rules: CellRules, by_um: float = 0.0, less: int = 0
) -> list[Record]:
    """Records of all cells, found block by block (a block as large as the slide: whole)."""
    size = maps.shape[2], maps.shape[1]
    grid = Grid(size, (2.0, 2.0), (0.5, 0.5), 0, (1.0, 1.0))
    reach = halo(rules, names, expand_px(by_um, grid)) - less
    found: list[Record] = []
    starts = (range(-shift[i], size[i], block[i]) for i in range(2))
    for x, y in itertools.product(*starts):
        core = intersect((x, y, x + block[0], y + block[1]), (0, 0, *size))
        window = intersect(grow(core, reach), (0, 0, *size))
        if is_empty(core):
            continue
        part = np.ascontiguousarray(maps[:, window[1] : window[3], window[0] : window[2]])
        cells = find_cells(part, names, window, core, size, rules, neighbours=by_um > 0)
        found += records(cells, part, rules, grid, by_um)
    return sorted(found)


def same_in_blocks(maps: Maps, names: tuple[str, ...], block: Size, shift: Size, by_um: float = 0.0) -> int:
    """Assert that blocks give the cells of the whole; return how many there are."""
    size = maps.shape[2], maps.shape[1]
    whole = cut(maps, names, size, (0, 0), RULES, by_um)
    assert cut(maps, names, block, shift, RULES, by_um) == whole
    return len(whole)


blocks_of_work = st.tuples(st.integers(20, 120), st.integers(20, 120))
shifts = st.tuples(st.integers(0, 19), st.integers(0, 19))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.integers(0, 10**6), blocks_of_work, shifts)
def test_whole_equals_blocks_with_marker_map(a: str, b: str, seed: int, block: Size, shift: Size) -> None:
    maps = np.stack([np.maximum(example(a, seed), example(b, seed + 1) // 2), example(b, seed + 1)])
    same_in_blocks(maps, ("foreground", "marker"), block, shift)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 10**6), blocks_of_work, shifts)
def test_whole_equals_blocks_without_marker_map(kind: str, seed: int, block: Size, shift: Size) -> None:
    same_in_blocks(example(kind, seed)[None], ("foreground",), block, shift)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 10**6), blocks_of_work, shifts, st.sampled_from((0.5, 2.0, 4.0)))
def test_whole_equals_blocks_when_expanded(kind: str, seed: int, block: Size, shift: Size, by_um: float) -> None:
    maps = np.stack([example(kind, seed), example("noise3", seed)])
    same_in_blocks(maps, ("foreground", "marker"), block, shift, by_um)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("marker", [False, True])
def test_every_kind_of_map_in_usual_blocks(kind: str, marker: bool) -> None:
    size, names = (420, 390), ("foreground", "marker", "type:a", "type:b")
    maps = np.stack([example(kind, 5, size), example(kind, 5, size), noise(size, 7, 1), noise(size, 7, 2)])
    if not marker:
        maps, names = np.ascontiguousarray(maps[[0, 2, 3]]), ("foreground", "type:a", "type:b")
    for block, shift in ((97, 0), (128, 64), (300, 131)):
        same_in_blocks(maps, names, (block, block), (shift, shift))


def whole(maps: Maps, names: tuple[str, ...] = ("foreground", "marker"), rules: CellRules = RULES) -> Cells:
    """Cells of a slide in one window."""
    box = 0, 0, maps.shape[2], maps.shape[1]
    return find_cells(maps, names, box, box, box[2:], rules)


def ellipses(size: Size, *shapes: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Mask of ellipses (x, y, a, b) with soft edges, 0 to 1."""
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float64)
    image = np.zeros((size[1], size[0]))
    for cx, cy, a, b in shapes:
        away = np.hypot((x - cx) / a, (y - cy) / b)
        image = np.maximum(image, np.clip((1 - away) * min(a, b) + 0.5, 0, 1))
    return image


def test_sums_boxes_and_probability_are_those_of_the_label_image() -> None:
    maps = np.stack([discs(SIZE, 3), noise(SIZE, 5, 1), noise(SIZE, 9, 2), noise(SIZE, 9, 3)])
    cells = whole(maps, ("foreground", "marker", "type:a", "type:b"))
    assert len(cells) > 20
    for i in range(len(cells)):
        y, x = np.nonzero(cells.label_image == i + 1)
        assert tuple(cells.sums[i]) == (len(x), x.sum(), y.sum())
        assert tuple(cells.box[i]) == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert cells.probability[i] == pytest.approx(maps[0, y, x].mean() / 255)
        means = maps[2:, y, x].mean(axis=1) / 255
        assert cells.type[i] == means.argmax() and cells.type_probability[i] == pytest.approx(means.max())
        assert cells.type_means[i] == pytest.approx(means)
    sure = whole(maps, ("foreground", "marker", "type:a", "type:b"), replace(RULES, min_type_probability=0.4))
    assert np.array_equal(sure.type, np.where(cells.type_means.max(axis=1) >= 0.4, cells.type, -1))
    assert 0 < (sure.type >= 0).sum() < len(sure)
    firsts = [int(np.flatnonzero(cells.label_image == i + 1)[0]) for i in range(len(cells))]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_is_one_piece_without_holes_and_no_larger_than_allowed(kind: str) -> None:
    for names, maps in (
        (("foreground",), example(kind, 2)[None]),
        (("foreground", "marker"), np.stack([example(kind, 2)] * 2)),
    ):
        cells = whole(maps, names)
        assert (cells.box[:, 2:] - cells.box[:, :2] <= RULES.max_diameter_px).all()
        assert (cells.sums[:, 0] >= RULES.min_area_px).all()
        for i in range(min(len(cells), 60)):
            mask = (cells.label_image == i + 1).astype(np.uint8)
            assert cv2.connectedComponents(mask, connectivity=4)[0] == 2
            assert cv2.connectedComponents(np.pad(1 - mask, 1, constant_values=1), connectivity=8)[0] == 2


def test_touching_nuclei_with_two_markers_are_two_cells() -> None:
    fore = ellipses((60, 40), (22, 20, 7, 7), (35, 20, 7, 7))
    core = ellipses((60, 40), (22, 20, 4, 4), (35, 20, 4, 4))
    cells = whole((np.stack([fore, core]) * 255).astype(np.uint8), rules=CellRules(0.5, 0.5, 4, 6, 40))
    assert len(cells) == 2 and not cells.oversize.any()
    assert cells.sums[:, 0].sum() == (fore * 255 >= 128).sum()
    assert abs(cells.sums[0, 0] - cells.sums[1, 0]) <= 20


def test_touching_nuclei_without_marker_map_are_cut_at_the_neck_and_long_ones_stay_whole() -> None:
    rules = CellRules(0.5, 0.5, 4, 8, 64)
    pair = ellipses((80, 40), (24, 20, 8, 8), (38, 20, 8, 8))
    cells = whole((pair[None] * 255).astype(np.uint8), ("foreground",), rules)
    assert len(cells) == 2 and abs(cells.sums[:, 1] / cells.sums[:, 0] - [24, 38]).max() < 1.5
    long = ellipses((80, 40), (40, 20, 18, 6))
    cells = whole((long[None] * 255).astype(np.uint8), ("foreground",), rules)
    assert len(cells) == 1 and not cells.oversize.any()
    assert cells.sums[0, 0] >= 0.97 * (long >= 0.5).sum()


def test_a_nucleus_without_marker_is_kept_and_a_speck_is_not() -> None:
    fore = ellipses((80, 40), (20, 20, 6, 6))
    fore[20, 60] = 1
    cells = whole((np.stack([fore, np.zeros_like(fore)]) * 255).astype(np.uint8), rules=CellRules(0.5, 0.5, 4, 6, 40))
    assert len(cells) == 1 and cells.sums[0, 0] == (fore[:, :50] * 255 >= 128).sum()


def test_holes_are_filled_and_enclosed_cells_vanish() -> None:
    y, x = np.mgrid[:60, :60]
    away = np.hypot(x - 30, y - 30)
    ring = np.where(((away > 8) & (away < 14)) | (away < 4), 255, 0).astype(np.uint8)
    cells = whole(np.stack([ring, ring]), rules=CellRules(0.5, 0.5, 4, 4, 40))
    assert len(cells) == 1 and cells.sums[0, 0] == (away < 14).sum()


def test_an_oversize_object_is_covered_by_flagged_cells() -> None:
    full = np.full((2, 200, 200), 255, np.uint8)
    cells = whole(full, rules=CellRules(0.5, 0.5, 4, 8, 64))
    assert cells.oversize.all() and len(cells) > 50
    assert cells.sums[:, 0].sum() > 0.97 * 200 * 200


def test_minimum_area_and_probability_drop_cells() -> None:
    fore = 0.7 * ellipses((80, 40), (20, 20, 6, 6)) + ellipses((80, 40), (55, 20, 9, 9))
    maps = (np.stack([fore, fore]) * 255).astype(np.uint8)
    assert len(whole(maps, rules=CellRules(0.5, 0.5, 4, 6, 40))) == 2
    assert len(whole(maps, rules=CellRules(0.5, 0.5, 150, 6, 40))) == 1
    assert len(whole(maps, rules=CellRules(0.5, 0.5, 4, 6, 40, min_probability=0.8))) == 1


@pytest.mark.parametrize("marker", [False, True])
def test_a_window_may_stick_out_of_the_slide_and_what_lies_there_is_ignored(marker: bool) -> None:
    maps, names = np.stack([discs(SIZE, 8), noise(SIZE, 5, 8)]), ("foreground", "marker")
    if not marker:
        maps, names = maps[:1], ("foreground",)
    wide = np.pad(maps, ((0, 0), (9, 4), (7, 11)), constant_values=255)
    window: Box = (-7, -9, SIZE[0] + 11, SIZE[1] + 4)
    cells = find_cells(np.ascontiguousarray(wide), names, window, window, SIZE, RULES, neighbours=True)
    plain = whole(maps, names)
    assert cells.label_image.shape == wide.shape[1:] == cells.neighbours.shape  # type: ignore[union-attr]
    assert np.array_equal(cells.label_image[9:-4, 7:-11], plain.label_image)
    assert np.array_equal(cells.sums, plain.sums) and np.array_equal(cells.box, plain.box)
    grid = Grid(SIZE, (1.0, 1.0), (0.5, 0.5), 0, (1.0, 1.0))
    assert [p.wkb for p in trace(cells, wide[0], 0.5, grid)] == [p.wkb for p in trace(plain, maps[0], 0.5, grid)]


def test_nothing_gives_no_cells() -> None:
    maps = np.zeros((2, 30, 40), np.uint8)
    assert len(whole(maps)) == 0
    beyond = find_cells(maps, ("foreground", "marker"), (100, 100, 140, 130), (100, 100, 140, 130), (50, 50), RULES)
    assert len(beyond) == 0 and beyond.label_image.shape == (30, 40)


def test_a_window_without_its_halo_is_refused() -> None:
    maps = np.zeros((2, 100, 100), np.uint8)
    with pytest.raises(ValueError, match="too small for core"):
        find_cells(maps, ("foreground", "marker"), (0, 0, 100, 100), (0, 0, 100, 100), (1000, 1000), RULES)
    with pytest.raises(ValueError, match="expected uint8"):
        find_cells(maps, ("foreground",), (0, 0, 100, 100), (0, 0, 10, 10), (100, 100), RULES)


def test_rules_that_leave_no_room_for_a_core_are_refused() -> None:
    with pytest.raises(SettingsError, match="2 \\* growth"):
        CellRules(0.5, 0.5, 4, 8, 18)


def test_the_halo_counts_only_what_is_used() -> None:
    rules = CellRules(0.5, 0.5, 30, 8, 64)
    assert halo(rules, ("foreground",)) < halo(rules) < halo(rules, expand_px=10)


def clump(radius: float, distance: float, low: float) -> Maps:
    """Two round nuclei whose foreground and cores run together; the marker falls to *low* between them."""
    y, x = np.mgrid[:40, :60].astype(np.float64)
    r = np.minimum(np.hypot(x - 30 + distance / 2, y - 20), np.hypot(x - 30 - distance / 2, y - 20))
    bridge = (np.abs(x - 30) < distance / 2) & (np.abs(y - 20) < 1.5)
    core = np.maximum(np.clip(1.1 - 0.5 * r / radius, 0, 1) * (r < radius), low * bridge)
    return (np.stack([(r < radius + 2) | bridge, core]) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("maps", "threshold", "count"),
    [
        (clump(3.2, 9, 0.5), 0.8, 2),
        (clump(3.2, 9, 0.5), 0.0, 1),
        (clump(3.2, 9, 0.95), 0.8, 1),  # no dip
        (clump(7.0, 18, 0.5), 0.8, 1),  # large: the inside of a large nucleus is uneven
        (clump(3.2, 3, 0.5), 0.8, 1),  # round
    ],
)
def test_small_nuclei_whose_cores_run_together_are_parted(maps: Maps, threshold: float, count: int) -> None:
    cells = whole(maps, rules=CellRules(0.5, 0.4, 4, 7, 56, clump_threshold=threshold))
    assert len(cells) == count
    assert cells.sums[:, 0].sum() >= 0.95 * (maps[0] > 127).sum()  # the parts grow over what lay between them


def test_clumps_are_parted_the_same_in_blocks() -> None:
    maps = np.stack([example("discs", 7), example("noise2", 5)])
    cells, unparted = (cut(maps, ("foreground", "marker"), SIZE, (0, 0), rules) for rules in (RULES, PLAIN))
    assert cells != unparted
    assert cut(maps, ("foreground", "marker"), (37, 29), (5, 11), RULES) == cells
