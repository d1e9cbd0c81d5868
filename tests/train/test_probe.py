"""The linear probe: at its optimum, from any start, and the head gives what the regression said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from wsipipe.errors import SettingsError
from wsipipe.labels import Annotated, DatasetSpec
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.heads import Head, HeadConfig
from wsipipe.settings import FitSettings, LoopSettings
from wsipipe.train import probe
from wsipipe.train.fitting import fit
from wsipipe.train.samples import Pool

SETTINGS = FitSettings(
    head="linear", backbone="rgb", batch=2, crop=64, working_mpp=0.5, device="cpu",
    loop=LoopSettings(optimiser="lbfgs"),
)  # fmt: skip


@pytest.fixture
def pool() -> Pool:
    """Return a picture whose nuclei are dark, with noise that no line separates."""
    labels = tiny.disc_labels(128, (30, 30, 12), (90, 40, 15), (60, 95, 18))
    noise = np.random.default_rng(0).normal(0, 60, (128, 128, 3))
    image = np.clip(np.where(labels[..., None] > 0, 90, 170) + noise, 0, 255).astype(np.uint8)
    return [(DatasetSpec("a"), [Annotated("a", "p", image, labels, 0.5, ("x", "y", "x"))])]


def test_it_is_the_optimum_of_the_regression(pool: Pool, tmp_path: Path) -> None:
    network, _ = fit(pool, replace(SETTINGS, types=False), tmp_path)
    x = torch.from_numpy(pool[0][1][0].image).float() / 127.5 - 1
    y = torch.from_numpy(pool[0][1][0].labels > 0).long().ravel()
    x = x.reshape(-1, 3).double()
    level = network.head.trunk.levels[0]
    w = level.weight.detach()[:, :, 0, 0].double().requires_grad_(True)
    b = level.bias.detach().double().requires_grad_(True)
    loss = F.cross_entropy(x @ w.T + b, y) + 0.5 * probe.RIDGE * ((w * x.std(0, correction=0)) ** 2).sum()
    loss.backward()
    assert w.grad.abs().max() < 1e-5 and b.grad.abs().max() < 1e-5
    start = torch.nn.functional.cross_entropy(torch.zeros(len(y), 2).double(), y)
    assert loss < 0.8 * start
    steps = (tmp_path / "log.csv").read_text().splitlines()
    assert len(steps) > 3 and float(steps[-1].split(",")[1]) == pytest.approx(loss.item(), abs=1e-5)


def test_nothing_but_the_data_decides(pool: Pool, tmp_path: Path) -> None:
    first, again = (fit(pool, SETTINGS, folder)[0] for folder in (made(tmp_path / "a"), made(tmp_path / "b")))
    slow = replace(SETTINGS, loop=LoopSettings(optimiser="lbfgs", steps=3, lr=0.1))
    other, _ = fit(pool, slow, made(tmp_path / "c"))
    for a, b, c in zip(*(n.head.state_dict().values() for n in (first, again, other)), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_pixels_are_what_the_head_sees() -> None:
    """The maps of several sizes, the finest coarser than the picture, as the head resizes logits."""
    torch.manual_seed(0)
    maps = [torch.randn(1, 4, 8, 8), torch.randn(1, 3, 16, 16)]
    head = Head(HeadConfig("linear", (4, 3), (), 2))
    drawn = np.arange(0, 32 * 32, 7)
    found = torch.from_numpy(probe._at(maps, drawn, (32, 32)))
    weights = torch.cat([level.weight[:, :, 0, 0] for level in head.trunk.levels], 1).double()
    logits = found @ weights.T + head.trunk.levels[0].bias.double()
    assert torch.allclose(logits.float(), head(maps)[0].flatten(1).T[drawn], atol=1e-5)


def test_every_backbone_and_types_too(pool: Pool, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "b.safetensors", tiny.shake(tiny.backbone()), ModelCard("b", tiny.backbone().config))
    settings = replace(SETTINGS, backbone=str(tmp_path / "b.safetensors"), cache_features=2)
    network, card = fit(pool, settings, tmp_path)
    assert card.head and card.head.types == ("x", "y") and network.head.channels == 3
    weights = [level.weight for level in network.head.trunk.levels]
    assert all(w.isfinite().all() and w.abs().max() > 0 for w in weights)


def test_many_patches_of_wide_features_are_thinned(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    known = probe._regression
    monkeypatch.setattr(probe, "_regression", lambda x, *rest: seen.append(len(x)) or known(x, *rest))
    for most in (100_000, 900):
        monkeypatch.setattr(probe, "PIXELS", most)
        fit(pool, SETTINGS, made(tmp_path / str(most)))
    assert seen == [128 * 128, 4 * 225]


@pytest.mark.parametrize(
    "changes", [{"head": "light"}, {"backbone": "T"}, {"adapt": "lora"}], ids=["head", "unfrozen", "adapted"]
)
def test_other_settings_have_no_optimum(pool: Pool, tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="--optimiser lbfgs finds the optimum of a linear head on a frozen"):
        fit(pool, replace(SETTINGS, **{"backbone": "cmd-t", **changes}), tmp_path)
