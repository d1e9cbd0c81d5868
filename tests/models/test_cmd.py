"""The backbone is the paper's, to the last parameter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests import tiny
from wsipipe.models.cmd import CMD, SIZES, CMDConfig
from wsipipe.models.cmd_block import Block
from wsipipe.models.condition import sinusoids

COUNTS = {
    ("T", 1024): 2_388_259,
    ("S", 1024): 8_763_971,
    ("B", 1024): 130_754_819,
    ("L", 1024): 516_706_819,
    ("T", 768): 2_330_915,
    ("S", 768): 8_649_283,
    ("B", 768): 130_296_067,
    ("L", 768): 515_789_315,
    ("T", 0): 2_136_931,
    ("S", 0): 8_218_307,
    ("B", 0): 127_539_971,
    ("L", 0): 507_524_611,
}
GMAC = {"T": 3.9, "S": 14.6, "B": 223, "L": 884}


def on_meta(size: str, condition: int) -> CMD:
    with torch.device("meta"):
        return CMD(SIZES[size](condition))


@pytest.mark.parametrize(("size", "condition"), COUNTS)
def test_parameter_counts(size: str, condition: int) -> None:
    assert sum(p.numel() for p in on_meta(size, condition).parameters()) == COUNTS[size, condition]


@pytest.mark.parametrize("size", SIZES)
def test_shapes_and_cost_of_a_tile(size: str) -> None:
    network, w = on_meta(size, 0), SIZES[size](0).widths[0]
    x, t = torch.empty(1, 3, 256, 256, device="meta"), torch.ones(1, device="meta")
    with FlopCounterMode(display=False) as counter:
        assert network(x, t).shape == x.shape
    assert counter.get_total_flops() / 2e9 == pytest.approx(GMAC[size], rel=0.015)
    shapes = [tuple(f.shape[1:]) for f in network.features(x)]
    sides = 16, 32, 64, 64, 128, 256
    assert shapes == [(c, s, s) for c, s in zip(network.feature_widths, sides, strict=True)]
    assert network.feature_widths == (2 * w, 2 * w, w, w, w, w)


def test_the_features_of_the_paper_are_4096_wide() -> None:
    assert sum(on_meta("L", 1024).feature_widths) == 4096


def test_there_are_26_blocks_each_of_the_width_of_its_level() -> None:
    w = tiny.WIDTHS
    by_level = [(w[0], 1), (w[1], 2), (w[2], 3), (w[3], 2), (w[4], 2), (w[5], 6), (w[4], 2), (w[3], 2), (w[2], 3)]
    expected = [c for c, n in [*by_level, (w[1], 2), (w[0], 1)] for _ in range(n)]
    assert [block.project.out_features for block in tiny.backbone().blocks()] == expected
    assert len(expected) == 26


def test_a_fresh_network_gives_zeros_and_its_blocks_are_the_identity() -> None:
    network = tiny.backbone(condition=12)
    x, t, z = torch.randn(2, 3, 64, 64), torch.tensor([3, 700]), torch.randn(2, 12)
    out = network(x, t, z)
    assert out.shape == x.shape and not out.any()
    for block in network.blocks():
        y = torch.randn(1, block.project.out_features, 5, 7)
        assert torch.equal(block(y, torch.randn(1, y.shape[1])), y)


def test_at_first_only_the_last_layer_learns() -> None:
    network = tiny.backbone()
    (network(torch.randn(1, 3, 64, 64), torch.tensor([9])) - 1).abs().mean().backward()
    learning = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert learning == {"output.rgb.weight", "output.rgb.bias"}


def test_gradients_reach_every_parameter_once_nothing_is_zero() -> None:
    network = tiny.shake(tiny.backbone(condition=12))
    x, z = torch.randn(2, 3, 64, 64), torch.randn(2, 12)
    (network(x, torch.tensor([3, 700]), z) - x).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_one_batch_is_overfitted() -> None:
    network = tiny.backbone()
    image, _ = tiny.disc_batch(32)
    hidden = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    masked = image * ~hidden.repeat_interleave(8, 2).repeat_interleave(8, 3)
    t, optimiser = torch.tensor([500, 500]), torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0)
    losses = []
    for _ in range(24):
        optimiser.zero_grad()
        loss = (network(masked, t) - image).abs().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_timestep_and_feature_condition_each_sample_alone() -> None:
    network = tiny.shake(tiny.backbone(condition=12)).eval()
    x, t, z = torch.randn(2, 3, 64, 64), torch.tensor([3, 700]), torch.randn(2, 12)
    with torch.no_grad():
        out = network(x, t, z)
        for other in (network(x, t.flip(0), z), network(x, t, z.flip(0)), network(x, t), network(x.flip(0), t, z)):
            assert (other - out).abs().amax((1, 2, 3)).min() > 1e-3
        assert torch.allclose(network(x[:1], t[:1], z[:1]), out[:1], atol=1e-5)


def test_open_gates_opens_only_gates() -> None:
    network = tiny.backbone()
    network.open_gates(0.25)
    for block in network.blocks():
        shift, scale, gate = block.modulation.bias.chunk(3)
        assert not shift.any() and not scale.any() and (gate == 0.25).all() and not block.modulation.weight.any()
    assert not network.output.modulation.bias.any()


def test_a_block_is_convnext_v2_with_modulation() -> None:
    """The block, written out once more from the paper's description with other operations."""
    block = tiny.shake(nn.Sequential(Block(6)))[0]  # type: ignore[index]
    x, c = torch.randn(2, 6, 9, 8), torch.randn(2, 6)
    shift, scale, gate = (part[:, :, None, None] for part in block.modulation(nn.functional.silu(c)).chunk(3, 1))
    y = block.depthwise(x)
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    y = torch.einsum("bchw,dc->bdhw", y * (1 + scale) + shift, block.expand.weight) + block.expand.bias[:, None, None]
    y = nn.functional.gelu(y)
    norm = y.square().sum((2, 3), keepdim=True).sqrt()
    norm = norm / (norm.mean(1, keepdim=True) + 1e-6)
    y = block.grn.gamma[:, None, None] * (y * norm) + block.grn.beta[:, None, None] + y
    y = torch.einsum("bdhw,cd->bchw", y, block.project.weight) + block.project.bias[:, None, None]
    assert torch.allclose(block(x, c), x + gate * y, atol=1e-5)


def test_sinusoids_start_with_cosines_of_unscaled_time() -> None:
    embedding = sinusoids(torch.tensor([0, 50]))
    assert embedding.shape == (2, 256)
    assert torch.equal(embedding[0], torch.cat((torch.ones(128), torch.zeros(128))))
    assert embedding[1, 0] == torch.tensor(50.0).cos() and embedding[1, 128] == torch.tensor(50.0).sin()
    assert embedding[1, 127] == pytest.approx(torch.tensor(50 / 1e4 ** (127 / 128)).cos().item())


def test_a_network_without_condition_ignores_the_feature() -> None:
    network = tiny.shake(CMD(CMDConfig(tiny.WIDTHS)))
    x, t = torch.randn(1, 3, 32, 32), torch.tensor([5])
    assert torch.equal(network(x, t, torch.randn(1, 12)), network(x, t))
