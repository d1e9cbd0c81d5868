"""Every sample is a function of seed, step and index: no worker, process or resume changes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import tiny
from wsipipe.train.diffusion import masked_count
from wsipipe.train.feed import Batch, Steps, feed


def steps(
    batch: int = 4, share: range | None = None, seed: int = 0, indices: tuple[int, ...] = (0, 2, 3, 5, 6)
) -> Steps:
    return Steps(tiny.Patches(7), np.array(indices), seed, batch, share or range(batch), 0.8)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_batch_is_uint8_with_exact_masks() -> None:
    batch = steps()[3]
    assert batch.images.shape == (4, 256, 256, 3) and batch.images.dtype == torch.uint8
    assert batch.hidden.shape == (4, 32, 32) and batch.hidden.dtype == torch.bool
    assert batch.hidden.sum((1, 2)).tolist() == [masked_count(t) for t in batch.timesteps.tolist()]
    assert batch.indices.dtype == batch.timesteps.dtype == torch.int64


def test_a_batch_follows_from_seed_and_step() -> None:
    assert same(steps()[3], steps()[3])
    assert not same(steps()[3], steps()[4]) and not same(steps()[3], steps(seed=1)[3])
    a, b = steps(indices=(0,))[3], steps(indices=(0,))[4]
    assert not torch.equal(a.images[0], a.images[1]) and not torch.equal(a.images, b.images)


def test_every_patch_is_seen_once_an_epoch_in_an_order_of_its_own() -> None:
    s = steps(batch=5)
    epochs = [s[step].indices.tolist() for step in range(8)]
    assert all(sorted(epoch) == [0, 2, 3, 5, 6] for epoch in epochs) and len({tuple(e) for e in epochs}) > 4
    across = [i for step in range(5) for i in steps(batch=3)[step].indices.tolist()]
    assert across == epochs[0] + epochs[1] + epochs[2]


def test_shares_of_processes_make_up_the_batch() -> None:
    whole, parts = steps()[2], [steps(share=range(k, k + 2))[2] for k in (0, 2)]
    assert same(whole, Batch(*(torch.cat(pair) for pair in zip(*parts, strict=True))))
    assert all(same(a, b) for a, b in zip(whole.split(2), parts, strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_whoever_makes_them(workers: int) -> None:
    found = list(feed(steps(), 2, 6, workers))
    assert len(found) == 4
    assert all(same(batch, steps()[step]) for step, batch in enumerate(found, 2))
