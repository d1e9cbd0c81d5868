"""The phantom: its truth holds in every region, and its file is what was asked for."""

from __future__ import annotations

import dataclasses
import resource
from pathlib import Path

import numpy as np
import pytest
import shapely

from tests.slide.helpers import SETTINGS
from wsipipe.errors import OutputError, SettingsError
from wsipipe.phantom.slide import PhantomSettings, PhantomTruth, write_phantom
from wsipipe.slide import fingerprint, open_slide

WHOLE = (0, 0, SETTINGS.width, SETTINGS.height)
UM2 = SETTINGS.drawn_mpp**2


def test_ids_do_not_depend_on_the_box(truth: PhantomTruth) -> None:
    labels = truth.instance_map(WHOLE)
    for x, y in ((0, 0), (333, 217), (900, 500)):
        box = x, y, x + 301, y + 277
        assert np.array_equal(truth.instance_map(box), labels[y : y + 277, x : x + 301])


def test_the_picture_does_not_depend_on_the_box(truth: PhantomTruth, picture: np.ndarray) -> None:
    part = truth.picture((700, 300, 1001, 555))
    assert np.array_equal(part, picture[300:555, 700:1001])


def test_nothing_outside_of_the_slide(truth: PhantomTruth) -> None:
    labels = truth.instance_map((-50, -60, 100, 100))
    assert not labels[:60].any() and not labels[:, :50].any()
    assert not truth.instance_map((SETTINGS.width, 0, SETTINGS.width + 64, 64)).any()


def test_polygons_are_the_instance_map(truth: PhantomTruth) -> None:
    labels = truth.instance_map(WHOLE)
    ids, polygons = truth.polygons(WHOLE)
    assert shapely.is_valid(polygons).all()
    assert (shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON).all()
    seen, counts = np.unique(labels[labels > 0], return_counts=True)
    assert np.isin(seen, ids).all()
    areas = dict(zip(ids.tolist(), shapely.area(polygons), strict=True))
    ratio = counts / np.array([areas[i] for i in seen.tolist()])
    assert np.percentile(np.abs(ratio - 1), 95) < 0.05
    for index in range(0, len(ids), 17):
        y, x = np.nonzero(labels == ids[index])
        assert shapely.contains_xy(polygons[index].buffer(0.1), x + 0.5, y + 0.5).all()


def test_polygons_belong_to_one_box_by_their_centre(truth: PhantomTruth) -> None:
    ids, _ = truth.polygons(WHOLE)
    halves = [truth.polygons((0, 0, 700, 1024))[0], truth.polygons((700, 0, 1536, 1024))[0]]
    assert np.array_equal(np.sort(np.concatenate(halves)), ids)
    assert len(truth.centroids(WHOLE)) == len(ids)


def test_nuclei_are_like_nuclei(truth: PhantomTruth, picture: np.ndarray) -> None:
    labels = truth.instance_map(WHOLE)
    _, counts = np.unique(labels[labels > 0], return_counts=True)
    diameter = np.sqrt(counts * UM2 * 4 / np.pi)
    assert 6 < np.median(diameter) < 9
    assert np.percentile(diameter, 99) < 12
    inside, tissue = picture[labels > 0], picture[(labels == 0) & (picture.max(2) < 240)]
    assert inside.mean() < tissue.mean() - 40
    red, green, blue = inside.mean(0)
    assert blue > red > green
    red, green, blue = tissue.mean(0)
    assert red > blue > green


def test_some_nuclei_touch(truth: PhantomTruth) -> None:
    _, polygons = truth.polygons(WHOLE)
    first, second = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=0.01)
    touching = np.unique(first[first != second])
    assert 0.08 < len(touching) / len(polygons) < 0.6


@pytest.mark.parametrize("density", [800.0, 3000.0, 6000.0])
def test_density(density: float) -> None:
    settings = PhantomSettings(width=2048, height=2048, mpp=0.5, nuclei_per_mm2=density, tissue=1.0)
    count = len(PhantomTruth(settings).centroids((0, 0, 2048, 2048)))
    assert 0.6 < count / (1.048576 * density) < 1.3


@pytest.mark.parametrize("share", [0.0, 0.05, 0.4, 1.0])
def test_share_of_tissue(share: float) -> None:
    picture = PhantomTruth(PhantomSettings(width=1024, height=1024, tissue=share, mpp=2.0)).picture((0, 0, 1024, 1024))
    assert (picture != (243, 243, 243)).any(2).mean() == pytest.approx(share, abs=0.04)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    small = PhantomSettings(width=700, height=500)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantom(tmp_path / name, dataclasses.replace(small, seed=seed))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


def test_sizes_that_are_no_multiple_of_a_tile(tmp_path: Path) -> None:
    truth = write_phantom(tmp_path / "odd.svs", PhantomSettings(width=777, height=333, lossless=True, tissue=1.0))
    with open_slide(tmp_path / "odd.svs") as slide:
        assert slide.info.size == (777, 333)
        assert np.array_equal(slide.read_region(0, 0, 0, 777, 333), truth.picture((0, 0, 777, 333)))


def test_bounds_need_room(tmp_path: Path) -> None:
    for bounds in ((-1, 0, 10, 10), (0, 0, 2000, 10), (10, 10, 10, 20)):
        with pytest.raises(SettingsError, match="bounds"):
            write_phantom(tmp_path / "x.scn", PhantomSettings(width=1000, height=1000, bounds=bounds))


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "no").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_phantom(tmp_path / "no" / "x.svs", PhantomSettings(width=64, height=64, tissue=0))


def test_glass_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "glass.svs"
    write_phantom(path, PhantomSettings(width=30_000, height=30_000, tissue=0))
    assert path.stat().st_size < 500_000
    with open_slide(path) as slide:
        assert (slide.read_region(0, 29_000, 29_000, 999, 999) == (243, 243, 243)).all()
    assert fingerprint(path)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    write_phantom(tmp_path / "small.svs", PhantomSettings(width=4_000, height=4_000, tissue=0.5))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_phantom(tmp_path / "large.svs", PhantomSettings(width=100_000, height=100_000, tissue=0.005))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    with open_slide(tmp_path / "large.svs") as slide:
        assert slide.info.size == (100_000, 100_000)
