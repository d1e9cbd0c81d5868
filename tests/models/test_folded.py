"""The folded backbone computes what the plain one does."""

from __future__ import annotations

import pytest
import torch

from tests import tiny
from wsipipe.errors import ModelError
from wsipipe.models.checkpoint import Segmenter
from wsipipe.models.folded import FoldedSegmenter
from wsipipe.models.heads import Head, HeadConfig, kinds

BF16 = 0.06
"""How far maps may be from fp32 ones in bf16, whose numbers have 8 bits."""


@torch.no_grad()
def plain_maps(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return network.head.maps(network(x))


@pytest.mark.parametrize("kind", kinds())
def test_folded_equals_plain(kind: str) -> None:
    network = tiny.segmenter(kind, types=("a", "b"))
    x = torch.rand(2, 3, 64, 96) * 2 - 1
    folded = FoldedSegmenter(network)
    with torch.no_grad():
        for ours, theirs in zip(folded.features(x), network.backbone.features(x), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5 * theirs.abs().max().item())
    assert torch.allclose(folded(x), plain_maps(network, x), atol=1e-5)


def test_folding_leaves_the_network_as_it_was_but_for_gradients() -> None:
    network = tiny.segmenter()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = FoldedSegmenter(network)
    assert not any(p.requires_grad for p in folded.parameters()) and not folded.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_folding_makes_nothing_on_another_device() -> None:
    """The meta device has shapes and no memory, and mixes with no other, as a GPU."""
    folded = FoldedSegmenter(tiny.segmenter().to("meta"))
    assert {p.device.type for p in folded.parameters()} == {"meta"}
    assert folded(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 2, 64, 64)


def test_a_conditioned_backbone_is_not_folded_without_its_condition() -> None:
    network = Segmenter(tiny.backbone(condition=12), Head(HeadConfig("linear", tiny.FEATURES)))
    with pytest.raises(ModelError, match=r"conditioned on an encoder's features, 12 wide, .*--unfreeze"):
        FoldedSegmenter(network)


def test_bf16_is_close() -> None:
    network = tiny.segmenter()
    x, _ = tiny.disc_batch()
    exact = plain_maps(network, x)
    folded = FoldedSegmenter(network).to(torch.bfloat16, memory_format=torch.channels_last)
    maps = folded(x.bfloat16().contiguous(memory_format=torch.channels_last))
    assert maps.dtype == torch.float32
    difference = (maps - exact).abs()
    assert difference.max() < BF16 and difference.mean() < BF16 / 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tile_does_not_see_what_else_is_in_the_batch(dtype: torch.dtype) -> None:
    folded = FoldedSegmenter(tiny.segmenter()).to(dtype, memory_format=torch.channels_last)
    x = (torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1).to(dtype)
    padded = torch.zeros_like(x)
    padded[1] = x[1]
    x, padded = (batch.contiguous(memory_format=torch.channels_last) for batch in (x, padded))
    assert torch.equal(folded(x)[1], folded(padded)[1])
