"""Frozen features on disk are those of the network, of every crop once a view, in an order that follows the seed."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import tiny
from wsipipe.errors import OutputError
from wsipipe.labels import Annotated, DatasetSpec
from wsipipe.settings import FitSettings, LoopSettings
from wsipipe.train.augment import OUTSIDE, plain_crop
from wsipipe.train.cached import FeatureCache, feature_cache
from wsipipe.train.samples import Pool, crops_per_pass, planned, type_weights, types_in

SETTINGS = FitSettings(unfreeze=False, crop=64, batch=3, cache_features=2, working_mpp=0.5, loop=LoopSettings(steps=9))


def picture(name: str, width: int, height: int, mpp: float, types: tuple[str, ...] = ()) -> Annotated:
    labels = tiny.disc_labels(max(width, height), (20, 20, 9), (50, 40, 12), (100, 30, 10))[:height, :width]
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return Annotated(name, name, image, labels, mpp, types)


@pytest.fixture
def pool() -> Pool:
    """Return two images: of 2 x 1 crops and of a part of one."""
    return [(DatasetSpec("a"), [picture("a", 128, 64, 0.5, ("x", "y", "")), picture("b", 60, 60, 0.25, ("y", "x"))])]


def halves(x: Tensor) -> list[Tensor]:
    """Stand for a backbone: the picture at half and at full size."""
    return [x[..., ::2, ::2], x]


def made(folder: Path, pool: Pool, settings: FitSettings = SETTINGS) -> FeatureCache:
    return feature_cache(folder / "features", pool, settings, types_in(pool), halves)


def test_one_view_is_a_grid_of_plain_crops(tmp_path: Path, pool: Pool) -> None:
    cache = made(tmp_path, pool, replace(SETTINGS, cache_features=1))
    assert (cache.crops, cache.views) == (3, 1)
    features, targets = cache.batch(0)
    order = cache.rows(0)
    assert sorted(order) == [0, 1, 2] and sorted(cache.rows(1)) == [0, 1, 2]
    big = pool[0][1][0]
    x = torch.from_numpy(big.image[:, 64:]).permute(2, 0, 1).float() / 127.5 - 1
    at = order.index(1)
    assert torch.allclose(features[1][at], x, atol=1e-3) and torch.allclose(features[0][at], x[:, ::2, ::2], atol=1e-3)
    assert features[1].is_contiguous(memory_format=torch.channels_last) and features[1].dtype == torch.float32
    assert ((targets.classes[at] > 0).numpy() == (big.labels[:, 64:] > 0)).all()
    small = order.index(2)
    assert (targets.classes[small] == OUTSIDE).sum() == 64 * 64 - 30 * 30
    assert targets.types is not None and set(targets.types[small].unique().tolist()) == {0, 1, 2}


def test_views_differ_and_every_epoch_is_a_view(tmp_path: Path, pool: Pool) -> None:
    cache = made(tmp_path, pool)
    assert cache.crops == 3 and len(cache.arrays["level0"]) == 6
    assert [sorted(cache.rows(step)) for step in range(4)] == [[0, 1, 2], [3, 4, 5]] * 2
    assert not np.array_equal(cache.arrays["level1"][0], cache.arrays["level1"][3])
    orders = {tuple(cache.rows(step)) for step in range(0, 20, 2)}
    assert len(orders) > 2


def test_batches_run_on_from_epoch_to_epoch(tmp_path: Path, pool: Pool) -> None:
    cache = made(tmp_path, pool, replace(SETTINGS, batch=2))
    rows = [row for step in range(3) for row in cache.rows(step)]
    assert sorted(rows[:3]) == [0, 1, 2] and sorted(rows[3:]) == [3, 4, 5]


def test_the_same_seed_makes_the_same_bytes_and_a_made_cache_is_used_again(tmp_path: Path, pool: Pool) -> None:
    made(tmp_path / "one", pool), made(tmp_path / "two", pool)
    files = sorted((tmp_path / "one" / "features").iterdir())
    assert all(file.read_bytes() == (tmp_path / "two" / "features" / file.name).read_bytes() for file in files)
    before = files[-1].stat().st_mtime_ns
    made(tmp_path / "one", pool)
    assert files[-1].stat().st_mtime_ns == before
    other = made(tmp_path / "three", pool, replace(SETTINGS, seed=1))
    assert not np.array_equal(other.arrays["level1"], made(tmp_path / "one", pool).arrays["level1"])


def test_an_interrupted_cache_is_made_anew(tmp_path: Path, pool: Pool) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        feature_cache(tmp_path / "features", pool, SETTINGS, (), halves, stop)
    assert not (tmp_path / "features").exists()
    assert made(tmp_path, pool).crops == 3


def test_a_cache_of_something_else_is_made_again(tmp_path: Path, pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    def rows(pool: Pool, weights: str) -> np.ndarray:
        part = feature_cache(
            tmp_path / "features", pool, SETTINGS, types_in(pool), lambda x: [x * len(weights)], weights=weights
        )
        return np.array(part.arrays["level0"])

    first = rows(pool, "a")
    assert (rows(pool, "a") == first).all() and not caplog.records
    assert (rows(pool, "aa") != first).any() and "features of another backbone" in caplog.text
    caplog.clear()
    pool[0][1][0] = replace(pool[0][1][0], image=255 - pool[0][1][0].image)
    assert (rows(pool, "aa") != first).any() and "computed again" in caplog.text


def test_a_disk_that_is_too_small_is_found_out_first(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 10_000))
    with pytest.raises(OutputError, match=r"--cache-features 2 needs 0\.\d GB for 6 crops, and 0\.0 GB are free"):
        made(tmp_path, pool)
    assert not (tmp_path / "features").exists()


def test_plain_crops_put_labels_where_the_image_shows_them() -> None:
    source = picture("a", 120, 120, 0.25)
    source = replace(source, image=np.where(source.labels > 0, 255, 0).astype(np.uint8)[..., None].repeat(3, 2))
    image, labels = plain_crop(source, (0, 0), 60, 0.5)
    assert labels.shape == (60, 60) and ((image[..., 0] > 127) == (labels > 0)).mean() > 0.98
    same, _ = plain_crop(source, (10, 20), 40, 0.25)
    assert (same == source.image[20:60, 10:50]).all()


def test_a_plan_follows_from_epochs_and_images(pool: Pool) -> None:
    settings = replace(SETTINGS, loop=LoopSettings(), epochs=30)
    assert crops_per_pass(pool, settings) == 3
    plan = planned(settings, pool)
    assert (plan.loop.steps, plan.loop.warmup, plan.crop) == (30, 3, 64)
    assert planned(replace(settings, loop=LoopSettings(steps=7)), pool).loop == LoopSettings(steps=7)
    assert planned(replace(settings, crop=None), pool).crop == 256
    assert planned(FitSettings(loop=LoopSettings(steps=1)), pool).crop == 160


def test_rare_types_weigh_more_and_one_type_is_none(pool: Pool) -> None:
    assert types_in(pool) == ("x", "y") and type_weights(pool, ("x", "y")).tolist() == [1, 1]
    more = [(DatasetSpec("a"), [picture("a", 64, 64, 0.5, ("x", "y", "y", "y", "y"))])]
    assert type_weights(more, ("x", "y")).tolist() == pytest.approx([4 / 3, 2 / 3])
    assert types_in([(DatasetSpec("a"), [picture("a", 64, 64, 0.5, ("x", "x"))])]) == ()
