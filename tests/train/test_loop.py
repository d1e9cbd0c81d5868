"""A training that stops and goes on is the training that never stopped."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wsipipe.errors import DatasetError
from wsipipe.settings import LoopSettings
from wsipipe.train.loop import EMA, Loop, learning_rate

SETTINGS = LoopSettings(steps=6, lr=1e-2, warmup=2, checkpoint_every=3)


class Interrupted(Exception):
    """Stands for a power cut."""


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.Conv2d(8, 1, 1)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last).train()


def batch(step: int) -> Tensor:
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(step))


def loop_in(folder: Path, seed: int = 0, settings: LoopSettings = SETTINGS) -> Loop:
    folder.mkdir(exist_ok=True)
    return Loop(network(seed), settings, folder)


def run(loop: Loop, stop: int = -1, factor: float = 1.0) -> nn.Module:
    """Run *loop*; interrupt it before step *stop*; from step 4 on the loss is multiplied by *factor*."""

    def loss_of(x: Tensor) -> Tensor:
        if loop.step == stop:
            raise Interrupted
        return (loop.network(x) - x.mean()).square().mean() * (factor if loop.step >= 4 else 1)

    return loop.run(batch, loss_of)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def test_resumed_equals_uninterrupted_bit_by_bit(tmp_path: Path) -> None:
    whole = loop_in(tmp_path / "whole")
    averaged = run(whole)
    first = loop_in(tmp_path / "parts")
    assert not first.restore()
    with pytest.raises(Interrupted):
        run(first, stop=3)
    second = loop_in(tmp_path / "parts", seed=1)
    assert not same(second.network, first.network)
    assert second.restore() and second.step == 3 and same(second.network, first.network)
    assert same(run(second), averaged) and same(second.network, whole.network) and not same(second.network, averaged)
    assert (tmp_path / "whole/log.csv").read_bytes() == (tmp_path / "parts/log.csv").read_bytes()
    assert whole.path.read_bytes() == second.path.read_bytes()


def test_a_finished_training_restores_as_finished(tmp_path: Path) -> None:
    averaged = run(loop_in(tmp_path))
    again = loop_in(tmp_path, seed=1)
    assert again.restore() and again.step == 6
    assert same(run(again, stop=6), averaged)


def test_each_step_is_reported_with_its_loss_and_gets_its_batch(tmp_path: Path) -> None:
    loop, seen, reports = loop_in(tmp_path), [], []

    def loss_of(step: int) -> Tensor:
        seen.append(step)
        return loop.network(batch(step)).square().mean()

    loop.run(lambda step: step, loss_of, lambda step, loss: reports.append((step, loss)))
    assert seen == [0, 1, 2, 3, 4, 5] == [step for step, _ in reports]
    rows = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()]
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [float(row[1]) for row in rows] == pytest.approx([loss for _, loss in reports], abs=1e-6)
    assert [float(row[2]) for row in rows] == pytest.approx([learning_rate(s, SETTINGS) for s in range(6)], rel=1e-3)


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    loop = loop_in(tmp_path)
    with pytest.raises(DatasetError, match=r"the loss is nan at step 4.*state\.safetensors"):
        run(loop, factor=math.nan)
    again = loop_in(tmp_path, seed=1)
    assert again.restore() and again.step == 3
    assert all(torch.isfinite(p).all() for p in again.network.parameters())


def test_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    settings = LoopSettings(steps=110, lr=2.0e-1, warmup=10)
    rates = [learning_rate(step, settings) for step in range(110)]
    assert rates[:10] == pytest.approx([0.02 * (k + 1) for k in range(10)])
    assert rates[10] == pytest.approx(0.2) and rates[60] == pytest.approx(0.1)
    assert rates[10:] == pytest.approx([0.1 * (1 + math.cos(math.pi * k / 100)) for k in range(100)])
    assert learning_rate(0, LoopSettings(steps=5, lr=0.5, warmup=0)) == 0.5


def test_average_follows_its_law() -> None:
    net = network()
    ema = EMA(net, 0.5)
    expected = copy.deepcopy(net).state_dict()
    for step in range(12):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(1)
            net(batch(step))  # moves the batch norm's statistics
        ema.update(net, step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in net.state_dict().items():
            new = decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value
            expected[name] = new
    for name, value in ema.network.state_dict().items():
        assert torch.allclose(value, expected[name], rtol=1e-5)
    assert not ema.network.training and not any(p.requires_grad for p in ema.network.parameters())


def test_only_matrices_decay_and_frozen_weights_stay(tmp_path: Path) -> None:
    net = network()
    net[0].requires_grad_(False)  # type: ignore[index]
    before = copy.deepcopy(net[0].state_dict())  # type: ignore[index]
    loop = Loop(net, SETTINGS, tmp_path)
    decayed, plain = loop.optimiser.param_groups
    assert decayed["weight_decay"] == SETTINGS.weight_decay and plain["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim == 1 for p in plain["params"])
    run(loop)
    assert all(torch.equal(value, before[name]) for name, value in net[0].state_dict().items())  # type: ignore[index]


PLATEAU = LoopSettings(steps=8, lr=1e-2, warmup=2, checkpoint_every=3, schedule="plateau", cooldown=3)


def test_a_plateau_rises_stays_and_comes_down() -> None:
    rates = [learning_rate(step, PLATEAU) / PLATEAU.lr for step in range(8)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 2 / 3, 1 / 3])


def test_a_plateau_that_came_down_goes_on_as_if_it_never_had(tmp_path: Path) -> None:
    longer = replace(PLATEAU, steps=12)
    whole = run(loop_in(tmp_path / "whole", settings=longer))
    run(loop_in(tmp_path / "parts", settings=PLATEAU))
    again = loop_in(tmp_path / "parts", seed=1, settings=longer)
    assert again.restore() and again.step == PLATEAU.steps - PLATEAU.cooldown
    assert same(run(again), whole)


def test_a_finished_plateau_given_again_is_finished(tmp_path: Path) -> None:
    averaged = run(loop_in(tmp_path, settings=PLATEAU))
    again = loop_in(tmp_path, seed=1, settings=PLATEAU)
    assert again.restore() and again.step == PLATEAU.steps and same(run(again), averaged)
