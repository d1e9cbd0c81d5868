"""Heads have the paper's sizes, learn, and say where one nucleus ends and the next begins."""

from __future__ import annotations

import pytest
import torch

from tests import tiny
from wsipipe.models.cmd import CMD, cmd_l, cmd_t
from wsipipe.models.heads import Head, HeadConfig, kind_of, kinds
from wsipipe.train.losses import head_loss

CMD_L = (1024, 1024, 512, 512, 512, 512)


def count(kind: str, widths: tuple[int, ...], types: tuple[str, ...] = ()) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Head(HeadConfig(kind, widths, types)).parameters())


def features(batch: int = 2, widths: tuple[int, ...] = tiny.FEATURES) -> list[torch.Tensor]:
    return [torch.randn(batch, c, s, s) for c, s in zip(widths, (4, 8, 16, 16, 32, 64), strict=True)]


@pytest.mark.parametrize(
    ("kind", "parameters"), [("linear", 8_194), ("light", 6_953_986), ("sota", 21_211_490), ("cisca", 6_955_528)]
)
def test_parameter_counts_on_the_large_backbone(kind: str, parameters: int) -> None:
    with torch.device("meta"):
        assert CMD(cmd_l()).feature_widths == CMD_L
    assert count(kind, CMD_L) == parameters


@pytest.mark.parametrize("kind", ["light", "cisca"])
def test_default_heads_stay_light_on_the_small_backbone(kind: str) -> None:
    with torch.device("meta"):
        assert count(kind, CMD(cmd_t()).feature_widths) < 30_000


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("types", [(), ("a", "b", "c")])
def test_maps_are_named_probabilities(kind: str, types: tuple[str, ...]) -> None:
    head = Head(HeadConfig(kind, tiny.FEATURES, types)).eval()
    logits = head(features())
    maps = head.maps(logits)
    marker = ("marker",) if kind_of(kind).instances else ()
    assert head.map_names == ("foreground", *marker, *(f"type:{name}" for name in types))
    assert logits.shape == (2, head.channels, 64, 64) and maps.shape == (2, len(head.map_names), 64, 64)
    assert maps.dtype == torch.float32 and maps.min() >= 0 and maps.max() <= 1


def test_foreground_is_everything_but_background() -> None:
    logits = torch.randn(1, 2, 4, 4)
    assert torch.allclose(Head(HeadConfig("linear", tiny.FEATURES)).maps(logits)[:, 0], logits.softmax(1)[:, 1])
    typed = Head(HeadConfig("linear", tiny.FEATURES, ("a", "b")))
    logits = torch.randn(1, 3, 4, 4)
    maps = typed.maps(logits)
    assert torch.allclose(maps[:, 0], maps[:, 1:].sum(1)) and torch.allclose(maps[:, 1:], logits.softmax(1)[:, 1:])
    cisca = Head(HeadConfig("cisca", tiny.FEATURES, ("a", "b")))
    logits = torch.randn(1, cisca.channels, 4, 4)
    maps = cisca.maps(logits)
    assert torch.allclose(maps[:, 0], 1 - logits[:, :3].softmax(1)[:, 0])
    assert torch.allclose(maps[:, 2:], logits[:, 8:].softmax(1)[:, 1:])


def test_linear_is_one_convolution_on_the_concatenated_features() -> None:
    head, maps = Head(HeadConfig("linear", tiny.FEATURES)), features()
    levels = head.trunk.levels
    whole = torch.cat([torch.nn.functional.interpolate(f, size=(64, 64), mode="bilinear") for f in maps], 1)
    weight = torch.cat([level.weight for level in levels], 1)
    assert torch.allclose(head(maps), torch.nn.functional.conv2d(whole, weight, levels[0].bias), atol=1e-5)


@pytest.mark.parametrize("kind", kinds())
def test_gradients_reach_every_parameter_and_every_feature(kind: str) -> None:
    torch.manual_seed(0)
    head = Head(HeadConfig(kind, tiny.FEATURES)).train()
    maps = [f.requires_grad_() for f in features()]
    _, targets = tiny.disc_batch()
    learned = [(1.0, head(maps)), *head.others(maps)]
    sum(weight * head_loss(kind, logits, targets) for weight, logits in learned).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []
    seen = {"decoder": maps[-1:], "deep": maps[1:]}.get(kind, maps)
    assert all(f.grad is not None and f.grad.any() for f in seen)


@pytest.mark.parametrize("kind", kinds())
def test_one_batch_is_overfitted(kind: str) -> None:
    network = tiny.segmenter(kind).train()
    x, targets = tiny.disc_batch()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(18):
        optimiser.zero_grad()
        loss = head_loss(kind, network(x), targets)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        foreground = network.head.maps(network(x))[:, 0] >= 0.5
    truth = targets.classes > 0
    assert 2 * (foreground & truth).sum() / (foreground.sum() + truth.sum()) > 0.9
